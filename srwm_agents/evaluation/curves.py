"""Learning curves as a picture: each game's mean return over frames, and the normalised mean over games."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from srwm_agents import plotting

COLUMNS = {"frames", "game", "mean_return", "normalised_score"}
LARGEST = 1e30
"""Number that can be drawn."""


def plot_curves(csv_file: Path, picture: Path, title: str = "") -> Path:
    """Draw ``curves.csv`` of an experiment as a PNG (or what the picture's ending says).

    Raises:
        ValueError: the file is no table, has no rows, lacks a column, or has something else than numbers in one.
    """
    try:
        curves = pd.read_csv(csv_file)
    except (ValueError, OverflowError) as error:  # a parser's or a codec's
        raise ValueError(f"{csv_file} is no table: {' '.join(str(error).split())}") from error
    if missing := COLUMNS - set(curves.columns):
        raise ValueError(f"{csv_file} lacks the column {sorted(missing)[0]!r}")
    if curves.empty:
        raise ValueError(f"{csv_file} has no rows yet")
    for column in sorted(COLUMNS - {"game"}):
        numbers = pd.to_numeric(curves[column], errors="coerce").to_numpy(dtype=float)
        spoilt = curves[(np.isnan(numbers) & curves[column].notna()) | (np.abs(numbers) > LARGEST)]
        if len(spoilt):
            raise ValueError(
                f"{csv_file} has {str(spoilt[column].iloc[0])[:50]!r} as {column} in row {spoilt.index[0] + 2}"
            )
        curves[column] = numbers
    curves["game"] = curves["game"].astype(str)
    games = list(dict.fromkeys(curves["game"]))
    panels = len(games) + 1
    columns = min(4, panels)
    rows = -(-panels // columns)
    with plotting.drawing(picture, 3.4 * columns, 2.7 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for game, axis in zip(games, axes, strict=False):
            curve = curves[curves["game"] == game]
            axis.plot(curve["frames"], curve["mean_return"])
            axis.set(title=game, ylabel="mean return")
        mean_axis = axes[len(games)]
        # A point only where every game has finished an episode, else the mean would jump when one joins.
        wide = curves.pivot_table(index="frames", columns="game", values="normalised_score").dropna()
        mean_axis.plot(wide.index, wide.mean(axis=1), color=plotting.INK)
        mean_axis.set(title="mean over games", ylabel="normalised score")
        for axis in axes[:panels]:
            axis.set_xlabel("frames")
            axis.xaxis.set_major_formatter(_short)
            axis.set_xlim(left=0)
        for axis in axes[panels:]:
            axis.remove()
        if title:
            figure.suptitle(title, parse_math=False)
    return picture


def _short(value: float, _position: int | None = None) -> str:
    """1500000 -> 1.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
