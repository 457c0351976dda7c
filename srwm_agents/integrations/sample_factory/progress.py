"""What a person sees while training runs: a bar, a rate, the time left, and how each game goes."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from envs import normalised_score
from srwm_agents.integrations.sample_factory.statistics import GameStatistics

_LINE_EVERY_SECONDS = 20.0


class TrainingDisplay:
    """A live display on a terminal; elsewhere one line every 20 seconds."""

    def __init__(self, console: Console, statistics: GameStatistics, total_frames: int, max_seconds: float) -> None:
        self.console = console
        self.statistics = statistics
        self.total_frames = total_frames
        self.max_seconds = max_seconds
        self._began = time.monotonic()
        self._last_line = self._began
        self._recent: deque[tuple[float, int]] = deque(maxlen=30)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[frames]} frames"),
            TextColumn("{task.fields[rate]} frames/s"),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=console,
        )
        self._task = self._progress.add_task("training", total=total_frames, frames="0", rate="–", left="–")
        self._live = Live(self._progress, console=console, refresh_per_second=2) if console.is_terminal else None

    def __enter__(self) -> TrainingDisplay:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, frames: int) -> None:
        """Show the state of training at ``frames`` frames."""
        now = time.monotonic()
        self._recent.append((now, frames))
        began, before = self._recent[0]
        span = now - began
        rate = (frames - before) / span if span > 0 else 0.0
        left = _duration(self._seconds_left(frames, rate, now))
        if self._live is not None:
            self._progress.update(self._task, completed=frames, frames=f"{frames:,}", rate=f"{rate:,.0f}", left=left)
            self._live.update(Group(self._progress, self._games()))
        elif now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            self.console.print(
                f"{frames:,} of {self.total_frames:,} frames, {rate:,.0f} frames/s, {left} left | {self._line()}",
                highlight=False,
                soft_wrap=True,
            )

    def _seconds_left(self, frames: int, rate: float, now: float) -> float | None:
        by_time = self.max_seconds - (now - self._began)
        if rate <= 0:
            return None
        return max(0.0, min((self.total_frames - frames) / rate, by_time))

    def _line(self) -> str:
        means = {game: self.statistics.mean_return(game) for game in self.statistics.games}
        return ", ".join(f"{game} {'–' if mean is None else f'{mean:.2f}'}" for game, mean in means.items())

    def _games(self) -> Table:
        table = Table("game", "mean return", "normalised", "mean length", "episodes", box=None, pad_edge=False)
        for game, window in self.statistics.windows.items():
            mean = self.statistics.mean_return(game)
            if mean is None:
                table.add_row(game, "–", "–", "–", "0")
                continue
            length = sum(window.lengths) / len(window.lengths)
            score = normalised_score(game, self.statistics.mode, mean)
            table.add_row(game, f"{mean:.2f}", f"{score:.3f}", f"{length:.0f}", f"{window.episodes:,}")
        return table


def _duration(seconds: float | None) -> str:
    if seconds is None or seconds > 1e8:
        return "–"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
