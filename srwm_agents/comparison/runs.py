"""Runs in a ``train_dir``: which there are, and what each one's files say of its state. Nothing is written."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from srwm_agents.curves import CURVES_FILE, WINDOW, mean_over_games, read_curves, settled
from srwm_agents.experiment_folders import FEWSHOT, TRAINING, Contents, lock_holder
from srwm_agents.files import printable

_CHECKPOINT = re.compile(r"^checkpoint_(\d{9,})_(\d+)\.pth$")
"""Update and frames, in the name of a checkpoint."""
_NO_SETTINGS = ("help", "cli_args", "flag_defaults", "command_line", "git_hash", "git_repo_name", "wandb_unique_id")
"""What a ``config.json`` has beside settings, or what is made for each run anew."""
_PROCGEN = ("procgen", "", None)
"""Values of ``--env``, of this version and earlier ones, with which ``--games`` are played."""
_DEPTH = 4
"""Folders below ``train_dir`` in which experiments are looked for: names may have slashes."""


class RunError(ValueError):
    """A run cannot be found or used; the message says why, in one line."""


@dataclass(frozen=True)
class Run:
    """A run of ``train`` or ``distributed`` (kind "train"), or of ``fewshot train`` ("fewshot")."""

    name: str
    """From the folder that was searched."""
    folder: Path
    kind: str

    @property
    def contents(self) -> Contents:
        """What the experiments of its command consist of."""
        return FEWSHOT if self.kind == "fewshot" else TRAINING

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What was asked for, by name of the setting.

        Raises:
            RunError: the file is missing or damaged.
        """
        file = self.folder / str(self.contents.settings)
        try:
            saved = json.loads(file.read_text())
        except OSError as error:
            raise RunError(f"{file.name} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise RunError(f"{file.name} is no JSON: {printable(str(error), 100)}") from error
        request = saved.get("request", saved) if isinstance(saved, dict) else None
        if not isinstance(request, dict):
            raise RunError(f"{file.name} has no settings")
        return {name: value for name, value in request.items() if name not in _NO_SETTINGS}

    @cached_property
    def given(self) -> frozenset[str]:
        """Settings that were flags; empty where that is not recorded."""
        try:
            given = json.loads((self.folder / "config.json").read_text()).get("given")
        except (OSError, ValueError, AttributeError):
            return frozenset()
        return frozenset(map(str, given)) if isinstance(given, list) else frozenset()

    @property
    def core(self) -> str:
        """Name of the agent's memory."""
        if self.settings.get("use_rnn") is False and "core" not in self.given:
            return "feedforward"  # Sample Factory's way to ask for it
        return str(self.settings.get("core", "srwm" if self.kind == "fewshot" else "?"))

    @property
    def plays(self) -> str:
        """Games, the environment, or the data set, as in the settings."""
        if self.kind == "fewshot":
            return str(self.settings.get("dataset", "?"))
        env = self.settings.get("env")
        return str(self.settings.get("games", "?") if env in _PROCGEN else env).replace(" ", "")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Settled rows of the learning curves (:func:`srwm_agents.curves.settled`).

        Raises:
            RunError: there are none, or the file is damaged.
        """
        file = self.folder / CURVES_FILE
        try:
            return settled(read_curves(file), self.window)
        except FileNotFoundError:
            raise RunError(f"no learning curves yet: {file} is missing") from None
        except (OSError, ValueError) as error:
            raise RunError(printable(str(error))) from error

    @property
    def window(self) -> int:
        """Episodes after which a game's mean is one of all episodes: a full window beyond each environment's first two.

        The first to end after a start are short ones. With 64 environments, a window of 100, and ends that are equally
        likely at each step (300 on average, 1,000 at most), the mean is .53 of what it becomes after 100 episodes, .86
        after 164 and 1.02 after 228.
        """
        sizes = [self.settings.get(name) for name in ("stats_avg", "num_workers", "num_envs_per_worker")]
        window, *environments = (size if isinstance(size, int) and size > 0 else 0 for size in sizes)
        return (window or WINDOW) + 2 * environments[0] * environments[1] // len(self.plays.split(","))

    def checkpoint(self) -> Path | None:
        """The newest one."""
        if self.kind == "fewshot":
            file = self.folder / "checkpoint.pt"
            return file if file.is_file() else None
        found = [
            (int(m[1]), file) for file in self.folder.glob("checkpoint_p0/*") if (m := _CHECKPOINT.match(file.name))
        ]
        return max(found)[1] if found else None


@dataclass(frozen=True)
class Status:
    """What ``runs`` says of a run; None where something is not known."""

    name: str
    kind: str
    state: str
    """ "training", "stopped", "finished" or "damaged"."""
    detail: str
    """Who trains there, or what is damaged; else empty."""
    core: str | None
    plays: str | None
    seed: int | None
    frames: int | None
    """Trained for and saved; of few-shot learning: updates."""
    of: int | None
    """To be trained for."""
    score: float | None
    score_is: str | None
    """ "normalised" (mean over games), "return" or "accuracy", in training; accuracy on validation classes, 0 to 1."""
    saved_at: float | None
    """When the newest checkpoint was written, in seconds since 1970."""


def find_runs(train_dir: Path) -> list[Run]:
    """All runs in a folder, by name.

    Raises:
        RunError: there is no such folder.
    """
    if not train_dir.is_dir():
        raise RunError(f"no folder {train_dir}")
    return [Run(str(folder.relative_to(train_dir)), folder, kind) for folder, kind in _experiments(train_dir, _DEPTH)]


def run_at(folder: Path, name: str) -> Run | None:
    """The run in a folder; None if it has none."""
    kind = _kind(folder)
    return None if kind is None else Run(name, folder, kind)


def nearest(name: str, known: list[str]) -> str:
    """The end of an error message: the name that was probably meant, or those that there are."""
    if close := difflib.get_close_matches(name, known, n=1):
        return f", did you mean {close[0]!r}?"
    shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    return f"; there: {shown or 'none'}"


def status_of(run: Run) -> Status:
    """Read a run's state; a damaged one is a state, not an error."""
    checkpoint = run.checkpoint()
    problem, frames, of, score, score_is = "", None, None, None, None
    core, plays, seed = None, None, None
    try:
        core, plays, seed = run.core, run.plays, run.settings.get("seed")
        of = run.settings.get("train_steps" if run.kind == "fewshot" else "train_for_env_steps")
    except RunError as error:
        problem = str(error)
    if checkpoint is not None and not zipfile.is_zipfile(checkpoint):
        problem = problem or f"{checkpoint.relative_to(run.folder)} is cut short or no checkpoint"
    try:
        frames, score, score_is = _progress(run)
    except RunError as error:
        if (run.folder / CURVES_FILE).is_file() and "no rows yet" not in str(error):
            problem = problem or str(error)
    if checkpoint is not None and (match := _CHECKPOINT.match(checkpoint.name)):
        frames = int(match[2])
    holder = lock_holder(run.folder, run.contents)
    saved_at = None
    if checkpoint is not None:
        with contextlib.suppress(OSError):  # it has just been replaced by a newer one
            saved_at = checkpoint.stat().st_mtime
    done = isinstance(of, int) and frames is not None and frames >= of
    state = "training" if holder else "damaged" if problem else "finished" if done else "stopped"
    return Status(
        name=run.name,
        kind=run.kind,
        state=state,
        detail=holder or problem,
        core=core,
        plays=plays,
        seed=seed if isinstance(seed, int) else None,
        frames=frames if frames is not None or checkpoint is not None else 0,
        of=of if isinstance(of, int) else None,
        score=score,
        score_is=score_is,
        saved_at=saved_at,
    )


def _progress(run: Run) -> tuple[int | None, float | None, str | None]:
    """Frames or updates that the curves reach, the score there, and what the score is."""
    if run.kind == "fewshot":
        try:
            rows = pd.read_csv(run.folder / CURVES_FILE)
            validated = rows.dropna(subset=["validation_accuracy"])
            score = float(validated["validation_accuracy"].iloc[-1]) if len(validated) else None
            return int(rows["step"].iloc[-1]), score, None if score is None else "accuracy"
        except OSError:
            return None, None, None
        except (ValueError, LookupError, TypeError) as error:
            raise RunError(f"{CURVES_FILE} is damaged: {printable(str(error), 100)}") from error
    curves = run.curves
    frames, mean = int(curves["frames"].max()), mean_over_games(curves)
    if not mean.empty:
        return frames, float(mean.iloc[-1]), "normalised"
    last = curves.groupby("game")["mean_return"].last()
    return (frames, float(last.iloc[0]), "return") if len(last) == 1 else (frames, None, None)


def _experiments(folder: Path, depth: int) -> Iterator[tuple[Path, str]]:
    try:
        entries = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # of another user, or gone
        return
    for entry in map(Path, entries):
        if kind := _kind(entry):
            yield entry, kind
        elif depth > 1 and not entry.is_symlink():
            yield from _experiments(entry, depth - 1)


def _kind(folder: Path) -> str | None:
    kinds: Mapping[str, Contents] = {"train": TRAINING, "fewshot": FEWSHOT}
    with contextlib.suppress(OSError):
        for kind, contents in kinds.items():
            if contents.is_experiment(folder):
                return kind
    return None
