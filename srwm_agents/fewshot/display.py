"""What a person sees while something long runs: a bar, a rate, the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from srwm_agents.fewshot.data import Track

_LINE_EVERY_SECONDS = 20.0


def bar_for(console: Console, what: str) -> Progress:
    """A progress bar that counts ``what``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def tracker(console: Console, what: str = "") -> Track:
    """A loop with a progress bar around it."""

    def track(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        with bar_for(console, what) as progress:
            yield from progress.track(items, total=total, description=description)

    return track


class TrainingDisplay:
    """A live bar on a terminal; elsewhere a line every 20 seconds. Says nothing where ``quiet``."""

    def __init__(self, console: Console, share: float, quiet: bool = False) -> None:
        """``share`` of the training is done already."""
        self.console, self.quiet = console, quiet
        self._live = console.is_terminal and not quiet
        self._began, self._first = time.monotonic(), share
        self._last_line = self._began
        self._progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
        )
        self._task = self._progress.add_task("training", total=1.0, status="")
        self._progress.update(self._task, completed=share)

    def __enter__(self) -> TrainingDisplay:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def update(self, share: float, step: int, loss: float, accuracy: float, rate: float) -> None:
        """Show where training is."""
        status = f"{step:,} updates, {rate:,.0f}/s, loss {loss:.3f}, accuracy {100 * accuracy:.1f} %"
        now = time.monotonic()
        if self._live:
            self._progress.update(self._task, completed=share, status=status)
        elif not self.quiet and now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            left = (1 - share) * (now - self._began) / max(1e-9, share - self._first)
            self.say(f"{status}, {left / 60:.0f} min left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True)
