"""Per-game training curves: from the workers' reports to TensorBoard, ``curves.csv`` and the display."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import EPISODIC
from sample_factory.utils.utils import log

from srwm_agents.curves import CURVES_FILE
from srwm_agents.envs import normalised_score
from srwm_agents.files import write_atomically
from srwm_agents.integrations.sample_factory.environment import GAME_KEYS

LEAST_FOR_CHANGE = 20
"""Episodes below which the halves of a window say nothing of a trend."""

COLUMNS: tuple[str, ...] = ("frames", "seconds", "game", "episodes", "mean_return", "mean_length", "normalised_score")


@dataclass
class GameWindow:
    """The latest finished episodes of one game."""

    returns: deque[float]
    lengths: deque[float]
    episodes: int = 0
    """Finished since the run began or was resumed."""
    left_out: int = 0
    """How many of these, the first ones, are not in the window."""


class GameStatistics(AlgoObserver):
    """Collects each game's finished episodes and writes means over the latest ``stats_avg`` of them.

    Sample Factory averages whatever keys arrive over all games; these keys stay with us instead, and the mean over
    games of the normalised score goes back as ``normalised_score``, for ``--save_best_metric``.
    """

    def __init__(
        self, games: Sequence[str], mode: str | None, window: int, folder: Path, environments: int = 0
    ) -> None:
        """Make empty windows.

        Args:
            games: their names.
            mode: Procgen's variant of the games; None for other environments, whose scores have no normal scale.
            window: the episodes that a mean is over.
            folder: of the experiment.
            environments: of each game; see :meth:`resume_from`.
        """
        self.games = list(games)
        self.mode = mode
        self.folder = folder
        self.environments = environments
        self.windows = {game: GameWindow(deque(maxlen=window), deque(maxlen=window)) for game in games}
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._written_at: int | None = None

    def on_init(self, runner: Runner) -> None:
        runner.policy_msg_handlers[EPISODIC] = [self._episodes_finished]

    def resume_from(self, frames: int) -> None:
        """Drop rows of frames that were lost with a killed run, and go on where the rest ends.

        Seconds go on, and so do the means: a game's window begins with its last mean, which new episodes replace one by
        one. The first ones to end are short, since all begin at the same time. They would make the curve fall, or rise:
        two for each environment are left out (why two: :attr:`srwm_agents.comparison.runs.Run.window`).

        Without ``frames`` a run begins anew, and all that is there is of runs that were lost as a whole.
        """
        file = self.folder / CURVES_FILE
        if frames == 0:
            file.unlink(missing_ok=True)
        if not file.is_file():
            return
        with file.open(newline="", encoding="utf-8", errors="replace") as handle:
            rows: list[dict[str, Any]] = [
                row for row in csv.DictReader(handle) if _whole(row) and int(row["frames"]) <= frames
            ]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(file, table.getvalue())
        self._seconds_before = max((float(row["seconds"]) for row in rows), default=0.0)
        self._written_at = max((int(row["frames"]) for row in rows), default=None)
        for game, row in {row["game"]: row for row in rows}.items():  # a game's last one
            if (window := self.windows.get(game)) is not None:
                episodes = min(int(float(row["episodes"])), window.returns.maxlen or 0)
                window.left_out = 2 * self.environments
                window.returns.extend([float(row["mean_return"])] * episodes)
                window.lengths.extend([float(row["mean_length"])] * episodes)

    def _episodes_finished(self, runner: Runner, msg: dict[str, Any], policy_id: int) -> None:
        stats = dict(msg[EPISODIC])
        extra = dict(stats.pop("episode_extra_stats", {}))
        columns = [stats.pop(key, extra.pop(key, ())) for key in GAME_KEYS]
        self.add(*map(np.atleast_1d, columns))
        if extra:
            stats["episode_extra_stats"] = extra
        Runner._episodic_stats_handler(runner, {**msg, EPISODIC: stats}, policy_id)
        if (score := self.mean_score()) is not None:
            runner.policy_avg_stats["normalised_score"] = [
                deque([score], maxlen=1) for _ in range(runner.cfg.num_policies)
            ]

    def add(self, game_index: Iterable[int], returns: Iterable[float], lengths: Iterable[float]) -> None:
        """Finished episodes, one entry an episode in each."""
        for index, episode_return, length in zip(game_index, returns, lengths, strict=True):
            window = self.windows[self.games[int(index)]]
            window.episodes += 1
            if window.episodes > window.left_out:
                window.returns.append(float(episode_return))
                window.lengths.append(float(length))

    def mean_return(self, game: str) -> float | None:
        """Mean raw return over the window, or None before the first episode ends."""
        returns = self.windows[game].returns
        return float(np.mean(returns)) if returns else None

    def change(self, game: str) -> float | None:
        """Mean raw return of the newer half of the window less that of the older half; None of too few episodes."""
        returns = list(self.windows[game].returns)
        if len(returns) < LEAST_FOR_CHANGE:
            return None
        half = len(returns) // 2
        return float(np.mean(returns[-half:]) - np.mean(returns[:half]))

    def normalised(self, game: str, mean: float) -> float | None:
        """A mean return as normalised score; None where there is no such scale."""
        return None if self.mode is None else normalised_score(game, self.mode, mean)

    def mean_score(self) -> float | None:
        """Mean over games of the normalised mean return, or None until every game has finished an episode."""
        means = {game: self.mean_return(game) for game in self.games}
        scores = [self.normalised(game, mean) for game, mean in means.items() if mean is not None]
        if None in scores:
            return None
        return float(np.mean(scores)) if len(scores) == len(self.games) else None  # type: ignore[arg-type]

    # Sample Factory declares (…, env_steps, writer) but calls with (…, writer, env_steps).
    def extra_summaries(self, runner: Runner, policy_id: int, writer: Any, env_steps: int) -> None:  # type: ignore[override]
        """Write every game's curve at ``env_steps`` frames; called each ``--experiment_summaries_interval`` seconds."""
        seconds = self._seconds_before + time.monotonic() - self._started
        rows = []
        for game in self.games:
            window, mean = self.windows[game], self.mean_return(game)
            if mean is None:
                continue
            score, length = self.normalised(game, mean), float(np.mean(window.lengths))
            writer.add_scalar(f"game_return/{game}", mean, env_steps)
            if score is not None:
                writer.add_scalar(f"game_normalised_score/{game}", score, env_steps)
            writer.add_scalar(f"game_length/{game}", length, env_steps)
            numbers = (f"{mean:.4f}", f"{length:.1f}", "" if score is None else f"{score:.4f}")
            rows.append((env_steps, f"{seconds:.1f}", game, window.episodes, *numbers))
        if (mean_score := self.mean_score()) is not None:
            writer.add_scalar("game_normalised_score/mean", mean_score, env_steps)
        if policy_id == 0 and env_steps != self._written_at:  # on a slow machine no update may have come between
            self._append(rows)
            self._written_at = env_steps

    def on_stop(self, runner: Runner) -> None:
        """One row more, so that the curves end where training does."""
        for policy_id, env_steps in runner.env_steps.items():
            if policy_id != 0 or env_steps != self._written_at:
                try:
                    self.extra_summaries(runner, policy_id, runner.writers[policy_id], env_steps)
                except OSError as error:  # what is saved after this is worth more than the last row
                    log.error("The last row of the curves cannot be written: %s", error)

    def _append(self, rows: list[tuple[Any, ...]]) -> None:
        file = self.folder / CURVES_FILE
        fresh = not file.is_file()
        with file.open("a", newline="") as handle:
            writer = csv.writer(handle)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerows(rows)


def _whole(row: dict[str, Any]) -> bool:
    """False for a row that a kill cut short, or that is none of ours."""
    try:
        numbers = [row[name] for name in COLUMNS if name not in ("game", "normalised_score")]
        if row["normalised_score"] != "":  # which only Procgen's games have
            numbers.append(row["normalised_score"])
        return int(row["frames"]) >= 0 and all(math.isfinite(float(number)) for number in numbers)
    except (KeyError, TypeError, ValueError):
        return False
