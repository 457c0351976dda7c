"""Learning curves of groups of runs as one picture: the mean normalised score, and a small panel a game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srwm_agents import plotting
from srwm_agents.comparison.scores import MEAN, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_INCHES, PHONE_INCHES = 9.6, 3.8
"""Widths; a CSS pixel is a hundredth of an inch in these pictures, so that fonts are shown at their size."""


def draw_for_page(picture: Path, curves: Mapping[str, Sequence[Curve]], random: Mapping[str, float]) -> Path:
    """The picture for a page: the mean over games on the left, the games beside it.

    Args:
        picture: the file to be made.
        curves: each group's, as :func:`.scores.curves_of` makes them.
        random: what a random policy gets, by panel, where that is known: a dotted line.
    """
    first, *small = _panels(curves)
    columns = next(most for most, games in ((1, 1), (2, 4), (3, 9), (4, 16)) if len(small) <= games)
    rows = -(-len(small) // columns) if small else 1
    width = PAGE_INCHES if small else 6.4
    with plotting.drawing(picture, width, max(3.8, 1.75 * rows)) as figure:
        grid = figure.add_gridspec(rows, 1 + columns, width_ratios=[1.9, *[1.0] * columns])
        for i, panel in enumerate(small):
            axes = figure.add_subplot(grid[i // columns, 1 + i % columns])
            _draw(axes, curves, panel, random)
            axes.set_ylabel("mean return" if i % columns == 0 else "")
            axes.set_xlabel("frames" if i + columns >= len(small) else "")
        axes = figure.add_subplot(grid[:, 0])
        _draw(axes, curves, first, random)
        plotting.label_lines(axes)
    return picture


def draw_for_phone(picture: Path, curves: Mapping[str, Sequence[Curve]], random: Mapping[str, float]) -> Path:
    """The same panels below each other, of a phone's width; arguments as :func:`draw_for_page`."""
    panels = _panels(curves)
    heights = [2.8] + [1.9] * (len(panels) - 1)
    with plotting.drawing(picture, PHONE_INCHES, sum(heights) + 0.22 * (len(curves) + 1)) as figure:
        stacked = figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False).flatten()
        for axes, panel in zip(stacked, panels, strict=True):
            _draw(axes, curves, panel, random)
            axes.set_xlabel("frames" if panel == panels[-1] else "")
        _legend(figure)
    return picture


def _panels(curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    return [curve.panel for curve in next(iter(curves.values()))]


def _draw(axes: Axes, curves: Mapping[str, Sequence[Curve]], panel: str, random: Mapping[str, float]) -> None:
    """One panel. A group's runs that go on after its shortest one are thin lines from there."""
    if panel in random:
        axes.axhline(random[panel], color=plotting.PALE, lw=1.4, ls=":", label="_random")
    right = max(float(curve.frames[-1]) for group in curves.values() for curve in group)
    for colour, (label, group) in zip(plotting.COLOURS, curves.items(), strict=False):
        curve = next(curve for curve in group if curve.panel == panel)
        table = curve.table()
        if table.empty:
            continue
        axes.fill_between(table["frames"], table["low"], table["high"], color=colour, alpha=0.2, lw=0)
        axes.plot(table["frames"], table["mean"], color=colour, label="_mean")
        end = np.flatnonzero(curve.together)[-1]
        for run in curve.runs if len(curve.runs) > 1 else ():
            axes.plot(curve.frames[end:], run[end:], color=colour, lw=0.8, label="_run")
        # Labels stand in one column at the right edge, at the heights at which the lines end, wherever that is.
        last = curve.runs[:, np.flatnonzero(~np.isnan(curve.runs).all(axis=0))[-1]]
        axes.plot([right], [np.nanmean(last)], color=colour, label=label)
    axes.set_title(panel, parse_math=False)
    axes.set_ylabel("normalised score" if panel == MEAN else "mean return")
    axes.set_xlabel("frames")
    axes.set_xlim(0, right)
    axes.xaxis.set_major_formatter(plotting.short_number)
    axes.locator_params(axis="x", nbins=4)


def _legend(figure: Figure) -> None:
    axes = figure.axes[0]
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    legend = figure.legend(handles=lines, loc="outside upper left")
    for text in legend.get_texts():
        text.set_parse_math(False)
