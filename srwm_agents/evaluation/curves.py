"""The picture of training: each game's mean return over frames, and the normalised mean over games."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

COLUMNS = {"frames", "game", "mean_return", "normalised_score"}


def plot_curves(csv_file: Path, picture: Path, title: str = "") -> Path:
    """Draw ``curves.csv`` of an experiment as a PNG (or what the picture's ending says).

    Raises:
        ValueError: the file has no rows, or lacks a column.
    """
    curves = pd.read_csv(csv_file)
    if missing := COLUMNS - set(curves.columns):
        raise ValueError(f"{csv_file} lacks the column {sorted(missing)[0]!r}")
    if curves.empty:
        raise ValueError(f"{csv_file} has no rows yet")
    games = list(dict.fromkeys(curves["game"]))
    panels = len(games) + 1
    columns = min(4, panels)
    rows = -(-panels // columns)
    # A figure of our own, not pyplot's: no global state, no display needed.
    figure = Figure(figsize=(3.4 * columns, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    colours = mpl.color_sequences["tab10"]
    for i, (game, axis) in enumerate(zip(games, axes, strict=False)):
        curve = curves[curves["game"] == game]
        axis.plot(curve["frames"], curve["mean_return"], color=colours[i % 10], lw=1.6)
        axis.set_title(game)
        axis.set_ylabel("mean return")
    mean_axis = axes[len(games)]
    # A point only where every game has finished an episode, else the mean would jump when one joins.
    wide = curves.pivot_table(index="frames", columns="game", values="normalised_score").dropna()
    mean_axis.plot(wide.index, wide.mean(axis=1), color="black", lw=1.6)
    mean_axis.set_title("mean over games")
    mean_axis.set_ylabel("normalised score")
    for axis in axes[:panels]:
        axis.set_xlabel("frames")
        axis.xaxis.set_major_formatter(FuncFormatter(_short))
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[panels:]:
        axis.remove()
    if title:
        figure.suptitle(title)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    return picture


def _short(value: float, _position: int | None = None) -> str:
    """1500000 -> 1.5M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
