"""Learning curves of groups of runs on common frames, and the scores of runs at the same number of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from srwm_agents.comparison.groups import Group
from srwm_agents.comparison.runs import Run, RunError
from srwm_agents.envs.games import normalised_score, random_return

POINTS = 100
"""Points of a curve over the frames of the longest run; rows between two points are averaged."""
LAST_SHARE = 0.05
"""A score is the mean of the curve over this last share of the frames."""
FEW_LEVELS = 100
"""Fewer levels than these can be much easier or harder than all of them are on average."""
MEAN = "mean over games"
"""The panel of the mean normalised score, in place of a game's name."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One group's curve in one panel."""

    panel: str
    """A game, or :data:`MEAN`."""
    frames: Values
    """[points]."""
    runs: Values
    """Each run's, [runs, points]; NaN before its first episodes and after its end."""

    @property
    def together(self) -> npt.NDArray[np.bool_]:
        """Points at which all runs of the group have a value."""
        return ~np.isnan(self.runs).any(axis=0)

    def table(self) -> pd.DataFrame:
        """Where all runs have a value: frames, runs, mean, low, high; low and high are the lowest and highest run."""
        runs = self.runs[:, self.together]
        columns = {"mean": runs.mean(axis=0), "low": runs.min(axis=0), "high": runs.max(axis=0)}
        return pd.DataFrame({"frames": self.frames[self.together], "runs": len(runs), **columns})


def is_scored(groups: Sequence[Group], games: Sequence[str]) -> bool:
    """Whether the games have a normalised score, as Procgen's have."""
    return all(
        run.curves.loc[run.curves["game"].isin(list(games)), "normalised_score"].notna().any()
        for group in groups
        for run in group.runs
    )


def frames_of(run: Run, games: Sequence[str]) -> float:
    """Frames up to which all games of a run have a curve."""
    return float(min(run.curves.loc[run.curves["game"] == game, "frames"].max() for game in games))


def common_frames(groups: Sequence[Group], games: Sequence[str], wanted: float | None = None) -> float:
    """The number of frames at which runs are compared: what all have reached, unless a smaller one is wanted.

    Raises:
        RunError: a run is shorter than what is wanted, or has no row yet beyond 0 frames.
    """
    reached = {run: frames_of(run, games) for group in groups for run in group.runs}
    shortest = min(reached, key=reached.__getitem__)
    if wanted is not None and wanted > reached[shortest]:
        raise RunError(
            f"--at_frames is {wanted:,.0f}, but {shortest.name!r} has {reached[shortest]:,.0f}, allowed: at most that"
        )
    if reached[shortest] <= 0:
        raise RunError(f"{shortest.name!r} has no curve beyond 0 frames yet")
    return reached[shortest] if wanted is None else wanted


def curves_of(groups: Sequence[Group], games: Sequence[str]) -> dict[str, list[Curve]]:
    """Each group's curves: of several games with a scale their mean normalised score first, then each game's return."""
    longest = max(frames_of(run, games) for group in groups for run in group.runs)
    frames = np.linspace(0, longest, POINTS + 1)
    with_mean = len(games) > 1 and is_scored(groups, games)
    curves: dict[str, list[Curve]] = {}
    for group in groups:
        panels = [
            Curve(game, frames, np.stack([_on(run, game, "mean_return", frames) for run in group.runs]))
            for game in games
        ]
        if with_mean:
            means = [np.mean([_on(run, game, "normalised_score", frames) for game in games], 0) for run in group.runs]
            panels.insert(0, Curve(MEAN, frames, np.stack(means)))
        curves[group.label] = panels
    return curves


def scores_at(groups: Sequence[Group], games: Sequence[str], frames: float, column: str) -> dict[str, Values]:
    """Each group's scores [runs, games] at a number of frames.

    A score is the mean of the curve's rows in the last :data:`LAST_SHARE` of the frames; where there is none, the line
    between the rows around it.

    Args:
        groups: runs to be compared.
        games: in the order of the columns.
        frames: at most what every run has reached.
        column: "normalised_score" or "mean_return".
    """
    return {
        group.label: np.array([[_score(run, game, column, frames) for game in games] for run in group.runs])
        for group in groups
    }


def random_returns(groups: Sequence[Group], games: Sequence[str]) -> dict[str, float]:
    """A random policy's mean return on each of the games, if it is known for all, and for the levels of all runs."""
    settings = [run.settings for group in groups for run in group.runs]
    if any(0 < int(of.get("num_levels") or 0) < FEW_LEVELS for of in settings):
        return {}
    known = {game: random_return(game, str(settings[0].get("distribution_mode", "easy"))) for game in games}
    return {game: value for game, value in known.items() if value is not None} if None not in known.values() else {}


def random_panels(
    groups: Sequence[Group], games: Sequence[str], scored: bool, returns: Mapping[str, float]
) -> dict[str, float]:
    """A random policy's level in each panel of the curves: its returns, and the mean of their normalised scores."""
    panels = {game: returns[game] for game in games if game in returns}
    if scored and len(games) > 1 and len(panels) == len(games):
        mode = str(groups[0].runs[0].settings.get("distribution_mode", "easy"))
        panels[MEAN] = float(np.mean([normalised_score(game, mode, returns[game]) for game in games]))
    return panels


def _score(run: Run, game: str, column: str, frames: float) -> float:
    x, y = _rows(run, game, column)
    last = (x <= frames) & (x > (1 - LAST_SHARE) * frames)
    return float(y[last].mean() if last.any() else np.interp(frames, x, y))


def _rows(run: Run, game: str, column: str) -> tuple[Values, Values]:
    rows = run.curves[run.curves["game"] == game].sort_values("frames", kind="stable")
    return rows["frames"].to_numpy(dtype=float), rows[column].to_numpy(dtype=float)


def _on(run: Run, game: str, column: str, frames: Values) -> Values:
    """A run's curve at common frames: means of the rows around each point, lines between; NaN where it has none."""
    x, y = _rows(run, game, column)
    width = frames[1] - frames[0]
    cells = pd.DataFrame({"x": x, "y": y}).groupby(np.round(x / width)).mean()
    values = np.interp(frames, cells["x"], cells["y"])
    values[(frames < x[0] - width / 2) | (frames > x[-1] + width / 2)] = np.nan
    return values
