"""The learner's checkpoints: written whole, read safely, and deleted when they are old."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srwm_agents.integrations.sample_factory.checkpoint import (
    CheckpointError,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


def test_a_numpy_metric_does_not_spoil_the_checkpoint(make_learner) -> None:
    """Sample Factory pickles the runner's NumPy scalar; torch.load then fails, and the run starts from scratch."""
    learner = make_learner()
    learner.save_best(0, "normalised_score", np.float64(0.5))
    learner.save()
    assert make_learner().best_performance == 0.5


def test_a_damaged_checkpoint_stops_the_learner(make_learner) -> None:
    learner = make_learner()
    learner.save()
    (file,) = list_checkpoints(learner.checkpoint_dir(learner.cfg, 0), "checkpoint")
    whole = file.read_bytes()
    for damaged in (whole[:-500], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"does not load \(it is truncated or altered"):
            make_learner()
        assert file.exists()


def test_a_half_written_checkpoint_is_never_the_latest(make_learner, tmp_path) -> None:
    """Sample Factory's temporary file matches its own pattern for checkpoints and sorts last."""
    learner = make_learner()
    learner.env_steps, learner.train_step = 64, 2
    learner.save()
    folder = tmp_path / "e" / "checkpoint_p0"
    (folder / "checkpoint_temp").write_bytes(b"half")
    (folder / ".checkpoint_000000003_96.pth.tmp").write_bytes(b"half")
    assert make_learner().env_steps == 64


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch) -> None:
    file = tmp_path / "checkpoint_000000001_32.pth"
    good = {"train_step": 1, "env_steps": 32, "model": {}, "optimizer": {}}
    save_checkpoint(good, file)

    def killed(_checkpoint, handle):
        handle.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(good, file)
    assert load_checkpoint(file)["env_steps"] == 32


def test_a_foreign_pickle_is_refused(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("never",))

    file = tmp_path / "checkpoint_000000001_32.pth"
    torch.save({"model": Evil()}, file)
    with pytest.raises(CheckpointError, match="does not load"):
        load_checkpoint(file)
    torch.save({"model": {}}, file)
    with pytest.raises(CheckpointError, match="lacks env_steps"):
        load_checkpoint(file)


def test_old_checkpoints_are_deleted_and_agents_exported(make_learner, tmp_path) -> None:
    learner = make_learner("--keep_checkpoints=2")
    for step in range(1, 5):
        learner.train_step, learner.env_steps = step, 32 * step
        learner.save()
    folder = tmp_path / "e"
    assert [f.name[11:20] for f in list_checkpoints(folder / "checkpoint_p0", "checkpoint")] == [
        "000000003",
        "000000004",
    ]
    assert (folder / "agent" / "model.safetensors").is_file()
