"""The display of a training run on games: frames, their rate, the time left, and each game's results so far."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from srwm_agents import display
from srwm_agents.integrations.sample_factory.statistics import GameStatistics


class TrainingDisplay(display.TrainingDisplay):
    """A training display of frames, with the mean return of each game."""

    def __init__(self, console: Console, statistics: GameStatistics, total_frames: int, max_seconds: float) -> None:
        """Make a display; training ends after ``total_frames`` or ``max_seconds``, whichever is first."""
        super().__init__(console, total_frames, unit="frames", max_seconds=max_seconds)
        self.statistics = statistics

    def summary(self) -> str:
        """The games' mean returns in one line."""
        means = {game: self.statistics.mean_return(game) for game in self.statistics.games}
        return ", ".join(f"{game} {'–' if mean is None else f'{mean:.2f}'}" for game, mean in means.items())

    def details(self) -> Table:
        """A table of the games' results so far."""
        table = Table("game", "mean return", "normalised", "mean length", "episodes", box=None, pad_edge=False)
        for game, window in self.statistics.windows.items():
            mean = self.statistics.mean_return(game)
            if mean is None:
                table.add_row(game, "–", "–", "–", "0")
                continue
            length = sum(window.lengths) / len(window.lengths)
            score = self.statistics.normalised(game, mean)
            table.add_row(
                game, f"{mean:.2f}", "–" if score is None else f"{score:.3f}", f"{length:.0f}", f"{window.episodes:,}"
            )
        return table
