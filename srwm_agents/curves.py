"""``curves.csv`` of an experiment: each game's mean return over frames, as training writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

CURVES_FILE = "curves.csv"
NEEDED = ("frames", "game", "mean_return", "normalised_score")
"""Columns without which the file is of no use."""
WINDOW = 100
"""Episodes that a row is the mean of, where the run does not say (``--stats_avg``)."""
LARGEST = 1e30
"""Number that can be drawn."""


def read_curves(file: Path) -> pd.DataFrame:
    """Read and check a file of learning curves.

    Returns:
        A row for each game at each number of frames, as they stand in the file: frames, game (str), mean_return,
        normalised_score (NaN where the environment has no such scale), and the columns that the file has beside these.

    Raises:
        ValueError: the file is no table, has no rows, lacks a column, or has something else than numbers in one.
        OSError: it cannot be read.
    """
    import numpy as np
    import pandas as pd

    try:
        curves = pd.read_csv(file)
    except (ValueError, OverflowError) as error:  # a parser's or a codec's
        raise ValueError(f"{file} is no table: {' '.join(str(error).split())}") from error
    if missing := set(NEEDED) - set(curves.columns):
        raise ValueError(f"{file} lacks the column {sorted(missing)[0]!r}")
    if curves.empty:
        raise ValueError(f"{file} has no rows yet")
    for column in sorted({*NEEDED, "episodes"} & set(curves.columns) - {"game"}):
        numbers = pd.to_numeric(curves[column], errors="coerce").to_numpy(dtype=float)
        spoilt = curves[(np.isnan(numbers) & curves[column].notna()) | (np.abs(numbers) > LARGEST)]
        if len(spoilt):
            raise ValueError(
                f"{file} has {str(spoilt[column].iloc[0])[:50]!r} as {column} in row {spoilt.index[0] + 2}"
            )
        curves[column] = numbers
    curves["game"] = curves["game"].astype(str)
    return curves.dropna(subset=["frames", "mean_return"])


def settled(curves: pd.DataFrame, window: int = WINDOW) -> pd.DataFrame:
    """The rows that are means of a full window of episodes.

    When a run begins or is resumed, the first episodes to end are short ones, whose returns are no sample of all. Of a
    game that never has a full window, rows of at least half as many episodes as its largest row has are kept.

    Args:
        curves: as :func:`read_curves` returns them; "episodes" counts those since the run began or was resumed.
        window: episodes that a row is the mean of.
    """
    if "episodes" not in curves.columns:
        return curves
    full = ~(curves["episodes"] < window)
    never_full = ~full.groupby(curves["game"]).transform("any")
    most = curves.groupby("game")["episodes"].transform("max")
    return curves[full | (never_full & (2 * curves["episodes"] >= most))]


def mean_over_games(curves: pd.DataFrame) -> pd.Series:
    """Mean over games of the normalised score by frames, where every game has a row; empty where there is no scale.

    A point where one game is missing would make the mean jump.
    """
    wide = curves.pivot_table(index="frames", columns="game", values="normalised_score", dropna=False)
    return wide.dropna().mean(axis=1)
