"""Runs as training leaves them, made in moments."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path) -> MakeRun:
    """``make_run(name, returns={game: at the end}, frames=…, saved=…, **settings)``: a run in ``tmp_path``.

    Each game's return rises from 0 to its last value on a straight line; ``normalised`` False leaves that column empty,
    as environments without such a scale do. ``saved`` frames have a checkpoint; None for no checkpoint.
    """

    def make(
        name: str,
        returns: Mapping[str, float] = {"maze": 8.0, "heist": 6.0},
        frames: int = 1000,
        *,
        normalised: bool = True,
        saved: int | None = None,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        request = {
            "games": ",".join(returns),
            "core": "srwm",
            "seed": 1,
            "distribution_mode": "easy",
            "train_for_env_steps": 2000,
            "stats_avg": 100,
            **settings,
        }
        document = {"given": ["seed"], "request": request, "command_line": f"--experiment={name}"}
        (folder / "config.json").write_text(json.dumps(document))
        (folder / "sf_log.txt").write_text("")
        rows = ["frames,seconds,game,episodes,mean_return,mean_length,normalised_score"]
        for step in range(101):
            at, share = frames * step // 100, step / 100
            for game, end in returns.items():
                score = f"{end * share / 10:.4f}" if normalised else ""
                rows.append(f"{at},{step}.0,{game},{100 + step},{end * share:.4f},50.0,{score}")
        (folder / "curves.csv").write_text("\n".join(rows) + "\n")
        if saved is not None:
            buffer = io.BytesIO()
            torch.save({"env_steps": saved}, buffer)
            (folder / "checkpoint_p0").mkdir()
            (folder / "checkpoint_p0" / f"checkpoint_{7:09d}_{saved}.pth").write_bytes(buffer.getvalue())
        return folder

    return make
