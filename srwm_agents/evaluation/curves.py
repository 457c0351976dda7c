"""Learning curves of one experiment as a picture: each game's mean return over frames, and the mean over games."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from srwm_agents import plotting
from srwm_agents.curves import WINDOW, mean_over_games, read_curves, settled


def plot_curves(
    csv_file: Path,
    picture: Path,
    title: str = "",
    window: int = WINDOW,
    random: Mapping[str, float] | None = None,
) -> Path:
    """Draw ``curves.csv`` of an experiment as a PNG (or what the picture's ending says).

    Args:
        csv_file: what training wrote.
        picture: the file to be made.
        title: above all panels.
        window: episodes that a row is the mean of; rows of fewer, as after a resume, are left out where others are.
        random: a random policy's mean return by game, where it is known: a dotted line.

    Raises:
        ValueError: the file is no table, has no rows, lacks a column, or has something else than numbers in one.
    """
    curves = settled(read_curves(csv_file), window)
    games = list(dict.fromkeys(curves["game"]))
    mean = mean_over_games(curves)
    panels = len(games) + (not mean.empty)
    columns = min(3, panels)
    rows = -(-panels // columns)
    with plotting.drawing(picture, plotting.PAGE_INCHES / 3 * max(columns, 2), 2.2 * rows + 0.3) as figure:
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
        for game, axis in zip(games, axes, strict=False):
            curve = curves[curves["game"] == game]
            axis.plot(curve["frames"], curve["mean_return"])
            if random is not None and game in random:
                axis.axhline(random[game], color=plotting.PALE, lw=1.4, ls=":")
                axis.annotate(
                    "random", (1, random[game]), (0, 3), ("axes fraction", "data"), "offset points", ha="right"
                )
            axis.set(title=game, ylabel="mean return")
        if not mean.empty:
            axes[len(games)].plot(mean.index, mean, color=plotting.INK)
            axes[len(games)].set(title="mean over games", ylabel="normalised score")
        for axis in axes[:panels]:
            axis.set_xlabel("frames")
            axis.xaxis.set_major_formatter(plotting.short_number)
            axis.locator_params(axis="x", nbins=4)
            axis.set_xlim(left=0)
        for axis in axes[panels:]:
            axis.remove()
        if title:
            figure.suptitle(title, parse_math=False)
    return picture
