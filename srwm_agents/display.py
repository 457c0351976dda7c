"""Progress on the console: bars around loops, and a training run's rate, time left and results so far."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self, TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY_SECONDS = 20.0
_RATE_OVER_UPDATES = 30


class _LossyStream:
    """A text stream that drops what cannot be written: nobody reads any more, the disk is full, the terminal is gone.

    What is printed is worth less than the run that prints it. The first failure is told on stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop_from_now_on(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop_from_now_on(error)

    def _drop_from_now_on(self, error: OSError) -> None:
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())  # also what is in the buffer, which is flushed at the process's end
            os.close(null)
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"output cannot be written ({error.strerror}) and is dropped; the run goes on\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_console() -> Console:
    """A console on stdout that never ends the run that prints to it."""
    return Console(file=cast(TextIO, _LossyStream(sys.stdout)))


def progress_bar(console: Console, what: str = "") -> Progress:
    """A progress bar that counts ``what``, to be entered; its tasks are added by ``add_task``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(what),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def tracker(console: Console, what: str = "") -> Callable[[Iterable[Any], int, str], Iterable[Any]]:
    """A function ``(items, total, description)`` that passes the items on and shows a progress bar meanwhile."""

    def track(items: Iterable[Any], total: int, description: str) -> Iterable[Any]:
        with progress_bar(console, what) as progress:
            yield from progress.track(items, total=total, description=description)

    return track


class TrainingDisplay:
    """Progress of a training run, or of other long work: a live bar on a terminal; elsewhere a line every 20 seconds.

    Context manager. A subclass may add :meth:`details` under the bar and :meth:`summary` at the line's end.
    """

    def __init__(
        self,
        console: Console,
        total: float,
        *,
        unit: str = "",
        done: float | None = None,
        max_seconds: float = math.inf,
        quiet: bool = False,
        title: str = "training",
    ) -> None:
        """Make a display.

        Args:
            console: where to show it.
            total: how much there is to do.
            unit: of ``total``, such as "frames"; "" for a number that says nothing to a person: only the percentage
                of it is shown.
            done: how much is done already; None if that is not known before the first :meth:`update`.
            max_seconds: training ends after this time, whatever is done by then.
            quiet: show nothing at all.
            title: what stands before the bar.
        """
        self.console = console
        self.total = total
        self.unit = unit
        self.max_seconds = max_seconds
        self.quiet = quiet
        self._began = self._last_line = time.monotonic()
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RATE_OVER_UPDATES)
        if done is not None:
            self._recent.append((self._began, done))
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=console,
        )
        left = _duration(max_seconds)
        self._task = self._progress.add_task(title, total=total, status="", left=left)
        self._progress.update(self._task, completed=done or 0)
        live = console.is_terminal and not quiet
        self._live = Live(self._progress, console=console, refresh_per_second=2) if live else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def details(self) -> RenderableType | None:
        """What stands under the bar of a terminal; None for nothing."""
        return None

    def summary(self) -> str:
        """What a line ends with where there is no terminal."""
        return ""

    def update(self, done: float, status: str = "") -> None:
        """Show that ``done`` of ``total`` is done, and ``status``."""
        if self.quiet:
            return
        now = time.monotonic()
        self._recent.append((now, done))
        rate = self._rate()
        left = _duration(self._seconds_left(done, rate, now))
        speed = f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.1f} {self.unit}/s"
        counted = [f"{done:,.0f} of {self.total:,.0f} {self.unit}", speed] if self.unit else []
        text = ", ".join([*counted, *filter(None, [status])])
        if self._live is not None:
            self._progress.update(self._task, completed=done, status=text, left=left)
            details = self.details()
            self._live.update(self._progress if details is None else Group(self._progress, details))
        elif now - self._last_line >= _LINE_EVERY_SECONDS:
            self._last_line = now
            self.say(" | ".join(filter(None, [f"{text}, {left} left", self.summary()])))

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if not self.quiet:
            self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _rate(self) -> float:
        """Units a second, over the latest updates."""
        (first_time, first), (last_time, last) = self._recent[0], self._recent[-1]
        return (last - first) / (last_time - first_time) if last_time > first_time else 0.0

    def _seconds_left(self, done: float, rate: float, now: float) -> float | None:
        by_rate = (self.total - done) / rate if rate > 0 else math.inf
        left = min(by_rate, self.max_seconds - (now - self._began))
        return max(0.0, left) if math.isfinite(left) else None


def _duration(seconds: float | None) -> str:
    """As h:mm:ss; a dash if it is not known."""
    if seconds is None or seconds > 1e8:
        return "–"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
