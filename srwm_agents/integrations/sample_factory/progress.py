"""The display of a training run on games: frames, their rate, the time left, and each game's results so far."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from srwm_agents import display
from srwm_agents.integrations.sample_factory.statistics import GameStatistics


class SaveClock:
    """Seconds since the latest change in a folder of checkpoints, by a clock that nobody sets."""

    def __init__(self, folder: Path) -> None:
        """``folder``: may not be there yet."""
        self._folder = folder
        self._changed, self._at = self._change(), None

    def seconds(self) -> float | None:
        """Since a change was first seen; None as long as nothing has changed."""
        if (changed := self._change()) != self._changed:
            self._changed, self._at = changed, time.monotonic()
        return None if self._at is None else time.monotonic() - self._at

    def _change(self) -> int | None:
        """When a file came into the folder, in the file system's time; checkpoints are renamed into it when whole."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return None


class TrainingDisplay(display.TrainingDisplay):
    """A training display of frames, with seconds since the last save, and each game's mean return and its trend."""

    def __init__(self, console: Console, statistics: GameStatistics, total_frames: int, max_seconds: float) -> None:
        """Make a display; training ends after ``total_frames`` or ``max_seconds``, whichever is first."""
        super().__init__(console, total_frames, unit="frames", max_seconds=max_seconds)
        self.statistics = statistics
        self._saved = SaveClock(statistics.folder / "checkpoint_p0")

    def update(self, done: float, status: str = "") -> None:
        """As the display's; it adds when a checkpoint was last saved."""
        since = self._saved.seconds()
        super().update(done, ", ".join(filter(None, [status, "" if since is None else f"saved {since:.0f} s ago"])))

    def summary(self) -> str:
        """The games' mean returns in one line, each with its change (:meth:`.statistics.GameStatistics.change`)."""
        return ", ".join(f"{game} {self._mean(game)}{self._change(game, ' ({})')}" for game in self.statistics.games)

    def details(self) -> Table:
        """A table of the games' results so far."""
        columns = ("game", "mean return", "change", "normalised", "mean length", "episodes")
        table = Table(*columns, box=None, pad_edge=False)
        for game, window in self.statistics.windows.items():
            mean = self.statistics.mean_return(game)
            if mean is None:
                table.add_row(game, "–", "–", "–", "–", "0")
                continue
            length = sum(window.lengths) / len(window.lengths)
            score = self.statistics.normalised(game, mean)
            normalised = "–" if score is None else f"{score:.3f}"
            change = self._change(game) or "–"
            table.add_row(game, self._mean(game), change, normalised, f"{length:.0f}", f"{window.episodes:,}")
        return table

    def _mean(self, game: str) -> str:
        mean = self.statistics.mean_return(game)
        return "–" if mean is None else f"{mean:.2f}"

    def _change(self, game: str, form: str = "{}") -> str:
        """A game's change with its sign; "" where it is not known."""
        change = self.statistics.change(game)
        return "" if change is None else form.format(f"{change:+.2f}")
