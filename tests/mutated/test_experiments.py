"""Mutated files of experiments: learning curves, checkpoints of few-shot training."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch

from srwm_agents.evaluation.curves import plot_curves
from srwm_agents.fewshot.experiment import ExperimentError
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.training import Trainer, train

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
    for rng in mutations(8):
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
