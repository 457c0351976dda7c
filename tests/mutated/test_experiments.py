"""Mutated files of experiments: learning curves, checkpoints of few-shot and introspective training."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from srwm_agents.checksums import safetensors_with_digest
from srwm_agents.evaluation.curves import plot_curves
from srwm_agents.fewshot.experiment import ExperimentError
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.training import Trainer, train
from srwm_agents.introspective.checkpoint import CheckpointError, load_training, save_training
from srwm_agents.introspective.training import TrainConfig, Training

CURVES = "frames,game,mean_return,normalised_score\n" + "".join(f"{n}00,{g},1.5,0.25\n" for n in range(4) for g in "ab")


def test_mutated_curves(tmp_path, mutations, mutate) -> None:
    file, drawn = tmp_path / "curves.csv", 0
    for rng in mutations(12):
        file.write_bytes(mutate(rng, CURVES.encode()))
        with mutations.refused(ValueError):
            plot_curves(file, tmp_path / "curves.png")
            drawn += 1
    assert drawn


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        experiment="x",
        train_dir=tmp_path,
        encoder_channels=4,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        ff_size=16,
        batch_size=2,
        train_steps=1,
        validation_episodes=2,
        image_size=16,
        device="cpu",
    )


def test_mutated_checkpoints(settings, tmp_path, mutations, mutate, monkeypatch) -> None:
    from srwm_agents.fewshot.data import glyphs, loading

    monkeypatch.setattr(loading, "make_glyphs", lambda split, size, track=None: glyphs.make_glyphs(split, size, 8, 4))
    train(settings)
    file = tmp_path / "x/checkpoint.pt"
    whole, resumed = file.read_bytes(), 0
    parts = torch.load(file, weights_only=True)
    for rng in mutations(12):
        if rng.random() < 0.5:
            file.write_bytes(mutate(rng, whole))
        else:
            odd = (None, "x", [], {}, math.nan, -1, torch.zeros(3), {"state": 3})
            with file.open("wb") as handle:
                torch.save({**parts, rng.choice(sorted(parts)): rng.choice(odd)}, handle)
        before = file.read_bytes()
        # Nothing tells weights of which some bits have changed from others, unless they make NaN.
        with mutations.refused(ExperimentError, FloatingPointError, seconds=20):
            train(replace(settings, train_steps=2))
            resumed += 1
            continue
        assert file.read_bytes() == before
    assert resumed


def test_weights_that_are_nan_are_neither_saved_nor_resumed(settings, tmp_path, monkeypatch) -> None:
    from srwm_agents.fewshot.data import glyphs, loading

    monkeypatch.setattr(loading, "make_glyphs", lambda split, size, track=None: glyphs.make_glyphs(split, size, 8, 4))
    train(settings)
    file = tmp_path / "x/checkpoint.pt"
    whole, update = file.read_bytes(), Trainer._update

    def spoil(trainer: Trainer, inputs) -> None:
        update(trainer, inputs)
        with torch.no_grad():
            trainer.classifier.head.weight[0, 0] = math.nan

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", spoil)
        patch.setattr("srwm_agents.fewshot.training._validate", lambda *_: None)
        with pytest.raises(FloatingPointError, match=r"head\.weight is not finite .* the last checkpoint is untouched"):
            train(replace(settings, train_steps=2))
    assert file.read_bytes() == whole
    content = torch.load(file, weights_only=True)
    content["objective"]["classifier.head.weight"][0, 0] = math.nan
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write_bytes(buffer.getvalue())
    with pytest.raises(ExperimentError, match=r"cannot be resumed .*head\.weight is not finite"):
        train(replace(settings, train_steps=2))
    assert file.read_bytes() == buffer.getvalue()


def test_mutated_introspective_runs(tmp_path, mutations, mutate) -> None:
    training = Training(TrainConfig.of_task("rewrite", updates=1))
    list(training.run())
    file = save_training(training, tmp_path)
    whole, loaded = file.read_bytes(), 0
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118 (no mapping)
    for rng in mutations(80):
        if rng.random() < 0.3:
            file.write_bytes(mutate(rng, whole))
        else:
            part = rng.choice(("config", "curve"))
            changed = {**about, part: mutate(rng, json.loads(about[part]))}
            file.write_bytes(safetensors_with_digest(tensors, changed))
        with mutations.refused(CheckpointError):
            load_training(tmp_path)
            loaded += 1
    assert loaded
    with torch.no_grad():
        training.weights[0, 0, 0] = math.nan
    file.write_bytes(whole)
    with pytest.raises(CheckpointError, match="weights are not finite at update 1"):
        save_training(training, tmp_path)
    assert file.read_bytes() == whole
    file.write_bytes(safetensors_with_digest({**tensors, "weights": training.weights.detach()}, about))
    with pytest.raises(CheckpointError, match="weights that are NaN or infinite"):
        load_training(tmp_path)
