"""Matrices and charts drawn with matplotlib, for the film and the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from srwm_agents import plotting
from srwm_agents.inspection.charts import Chart, charts_of
from srwm_agents.inspection.layout import Layer
from srwm_agents.inspection.page import LEVELS, quantised
from srwm_agents.inspection.recording import Recording, Step, Track

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@cache
def palette() -> npt.NDArray[np.uint8]:
    """Colours of the entries from -127 to 127, [255, 3]: blue, white, orange."""
    stops = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in plotting.DIVERGING], float)
    at = np.linspace(0, len(stops) - 1, 2 * LEVELS + 1)
    columns = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(columns, axis=1).round().astype(np.uint8)


def heads_image(layer: Layer, step: Step, index: int, scale: float, columns: int) -> npt.NDArray[np.uint8]:
    """All heads of a layer in a grid of ``columns``, one pixel an entry, a white column between blocks."""
    shades = palette()[quantised(step.layers[index].matrix, scale).astype(int) + LEVELS]
    borders = np.cumsum([block.columns for block in layer.blocks])[:-1]
    pictures = np.insert(shades, borders, 255, axis=2)  # [heads, rows, width, 3]
    _, height, width, _ = pictures.shape
    gap_x, gap_y = grid_gaps(layer)
    canvas = np.full((*grid_size(layer, columns), 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap_y), i % columns * (width + gap_x)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def grid_gaps(layer: Layer) -> tuple[int, int]:
    """Entries between heads, across and down."""
    return max(3, layer.columns // 14), max(2, layer.rows // 8)


def grid_size(layer: Layer, columns: int) -> tuple[int, int]:
    """Height and width in entries of a grid of all heads, as :func:`heads_image` draws it."""
    gap_x, gap_y = grid_gaps(layer)
    width = layer.columns + len(layer.blocks) - 1
    rows = -(-layer.heads // columns)
    return rows * (layer.rows + gap_y) - gap_y, columns * (width + gap_x) - gap_x


def best_columns(layer: Layer, height: float, width: float) -> tuple[int, float]:
    """Heads side by side with which entries are the largest in a place of this size, and how large one is then."""

    def entry(columns: int) -> float:
        rows_needed, columns_needed = grid_size(layer, columns)
        return min(height / rows_needed, width / columns_needed)

    columns = max(range(1, layer.heads + 1), key=entry)
    return columns, entry(columns)


class Place(NamedTuple):
    """A rectangle in pixels from the upper left corner of a picture."""

    left: float
    top: float
    width: float
    height: float


TITLE, GAP, STRIP_ROW = 18, 8, 14.0
"""Pixels: a chart's title, between charts, and a row of a strip, whose names need 9 points."""
SHARES = {"stems": 0.6, "lines": 1.0}
"""Heights of charts beside each other."""
SMALLEST = 24
"""Pixels of a share."""


def charts_height(charts: Sequence[Chart], share: float) -> float:
    """Pixels that charts need if a share has so many."""
    strips = sum(STRIP_ROW * len(chart.lines) for chart in charts if chart.kind == "strip")
    shares = sum(SHARES[chart.kind] for chart in charts if chart.kind != "strip")
    return strips + share * shares + (TITLE + GAP) * len(charts)


def draw_charts(figure: Figure, size: tuple[int, int], place: Place, recording: Recording, track: Track) -> list[Axes]:
    """Draw a track's charts one below the other on one time axis, whose labels stand below ``place``.

    Args:
        figure: of ``size`` pixels, width and height.
        size: the same.
        place: where the axes are; the names of levels stand to the left of it.
        recording: what the track is of.
        track: in the axes' coordinates its first step is 0, whatever its number.
    """
    charts, ended, first = charts_of(recording, track), track.ended, recording.first
    rest = place.height - charts_height(charts, 0)
    share = max(SMALLEST, rest / max(1e-9, sum(SHARES.get(chart.kind, 0) for chart in charts)))
    top, panels = place.top, []
    for chart in charts:
        high = STRIP_ROW * len(chart.lines) if chart.kind == "strip" else SHARES[chart.kind] * share
        top += TITLE
        panel = _axes(figure, size, Place(place.left, top, place.width, high))
        _draw_chart(panel, chart, ended, time_labels=chart is charts[-1])
        top += high + GAP
        panels.append(panel)
        panel.xaxis.set_major_locator(FixedLocator([step - first for step in _ticks(len(ended), first)]))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step + first:.0f}"))
    panels[-1].set_xlabel(recording.axis)
    return panels


def _ticks(steps: int, first: int) -> list[int]:
    """Some eight whole numbers on an axis from ``first`` on."""
    found = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(first, first + steps - 1)
    return [round(tick) for tick in found if first <= tick < first + steps]


def _axes(figure: Figure, size: tuple[int, int], place: Place) -> Axes:
    width, height = size
    left, top, across, down = place
    return figure.add_axes((left / width, 1 - (top + down) / height, across / width, down / height))


def picture_axes(figure: Figure, size: tuple[int, int], place: Place) -> Axes:
    """Axes for a picture, without a frame."""
    axes = _axes(figure, size, place)
    axes.set_axis_off()
    return axes


def _draw_chart(axes: Axes, chart: Chart, ended: npt.NDArray[np.bool_], *, time_labels: bool) -> None:
    """Lines with their names above their right end, stems, or shades."""
    steps = len(chart.lines[0].values)
    ends = np.flatnonzero(ended[:-1])
    if chart.kind == "strip":
        _draw_strip(axes, chart)
    else:
        for line in chart.lines:
            if chart.kind == "stems":
                given = np.flatnonzero(line.values)
                axes.vlines(given, 0, line.values[given], color=line.colour, lw=1.4)
            else:  # a new episode is a new line
                time, values = np.arange(steps, dtype=float), line.values.astype(float)
                axes.plot(
                    np.insert(time, ends + 1, np.nan), np.insert(values, ends + 1, np.nan), color=line.colour, lw=1.4
                )
        room = 0.06 * (chart.high - chart.low)
        axes.set_ylim(chart.low - room, chart.high + room)
        axes.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        axes.grid(False, axis="x")
    for end in ends:
        axes.axvline(end + 0.5, color=plotting.INK, lw=0.9, ls=(0, (3, 3)))
    axes.set_xlim(-0.5, steps - 0.5)
    axes.tick_params(axis="x", labelbottom=time_labels)
    title = axes.annotate(chart.title, (0, 1), (0, 3), "axes fraction", "offset points", va="bottom")
    if chart.kind != "lines" or len(chart.lines) < 2:
        return
    for line in chart.lines:
        title = axes.annotate(
            line.name, (1, 0), (9, 0), xycoords=title, textcoords="offset points", color=line.colour, va="bottom",
            fontweight="bold",
        )  # fmt: skip


def _draw_strip(axes: Axes, chart: Chart) -> None:
    shades = np.stack([line.values for line in chart.lines])
    axes.imshow(shades, aspect="auto", cmap=strip_colours(), vmin=0, vmax=1, interpolation="nearest")
    axes.set_yticks(range(len(chart.lines)), [line.name for line in chart.lines])
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    marked = [(t, row) for t, rows in enumerate(chart.marks) for row in rows]
    if marked:
        axes.plot(*zip(*marked, strict=True), ls="", marker="s", ms=1.6, mew=0, color=plotting.COLOURS[1])


def strip_colours() -> LinearSegmentedColormap:
    """From white to dark blue."""
    return LinearSegmentedColormap.from_list("strip", ["#ffffff", "#a9d0ec", "#3f8ec6", "#08406e"])
