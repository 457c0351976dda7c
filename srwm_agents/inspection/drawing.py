"""Matrices and charts drawn with matplotlib, for the film and the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from srwm_agents import plotting
from srwm_agents.inspection.charts import Chart
from srwm_agents.inspection.layout import Layer
from srwm_agents.inspection.page import LEVELS, quantised
from srwm_agents.inspection.recording import Step

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def palette() -> npt.NDArray[np.uint8]:
    """Colours of the entries from -127 to 127, [255, 3]: blue, white, orange."""
    stops = np.array([[int(text[i : i + 2], 16) for i in (1, 3, 5)] for text in plotting.DIVERGING], float)
    at = np.linspace(0, len(stops) - 1, 2 * LEVELS + 1)
    columns = [np.interp(at, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
    return np.stack(columns, axis=1).round().astype(np.uint8)


def matrix_image(layer: Layer, matrix: npt.NDArray[Any], scale: float) -> npt.NDArray[np.uint8]:
    """One head's matrix [rows, columns] as a picture [rows, width, 3], a white column between blocks."""
    shades = palette()[quantised(matrix, scale).astype(int) + LEVELS]
    parts: list[Any] = []
    start = 0
    for block in layer.blocks:
        parts += [shades[:, start : start + block.columns], np.full((layer.rows, 1, 3), 255, np.uint8)]
        start += block.columns
    return np.concatenate(parts[:-1], axis=1)


def heads_image(layer: Layer, step: Step, index: int, scale: float, columns: int) -> npt.NDArray[np.uint8]:
    """All heads of a layer in a grid of ``columns``, in a picture of one pixel an entry."""
    pictures = [matrix_image(layer, matrix, scale) for matrix in step.layers[index].matrix]
    height, width, _ = pictures[0].shape
    gap_x, gap_y = grid_gaps(layer)
    rows = -(-len(pictures) // columns)
    canvas = np.full((rows * (height + gap_y) - gap_y, columns * (width + gap_x) - gap_x, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap_y), i % columns * (width + gap_x)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def grid_gaps(layer: Layer) -> tuple[int, int]:
    """Entries between heads, across and down."""
    return max(3, layer.columns // 14), max(2, layer.rows // 8)


def grid_columns(layer: Layer) -> int:
    """Heads side by side, so that the grid is some twice as wide as it is high."""
    ratio = layer.columns / layer.rows
    return max(1, min(layer.heads, round((2.2 * layer.heads / ratio) ** 0.5)))


def draw_chart(axes: Axes, chart: Chart, ended: npt.NDArray[np.bool_], *, time_labels: bool) -> None:
    """A chart on its axes: lines with their names at the right end, stems, or shades."""
    steps = len(chart.lines[0].values)
    time = np.arange(steps)
    if chart.kind == "strip":
        shades = np.stack([line.values for line in chart.lines])
        axes.imshow(shades, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        axes.set_yticks(range(len(chart.lines)), [line.name for line in chart.lines])
        axes.grid(False)
    else:
        for line in chart.lines:
            if chart.kind == "stems":
                axes.vlines(time, 0, line.values, color=line.colour, lw=1.6)
            else:
                values = line.values.astype(float)
                axes.plot(time, values, color=line.colour, lw=1.4)
        room = 0.06 * (chart.high - chart.low)
        axes.set_ylim(chart.low - room, chart.high + room)
        axes.grid(False, axis="x")
    for end in np.flatnonzero(ended)[:-1] if ended[-1:].all() else np.flatnonzero(ended):
        axes.axvline(end + 0.5, color=plotting.INK, lw=0.9, ls=(0, (3, 3)))
    axes.set_xlim(-0.5, steps - 0.5)
    axes.tick_params(axis="x", labelbottom=time_labels)
    axes.set_title(chart.title, loc="left", fontsize=plotting.FONT_SIZE, pad=3)
    if chart.kind == "lines" and len(chart.lines) > 1:
        at = 1.0
        for line in reversed(chart.lines):
            axes.annotate(
                line.name, (at, 1), (0, 3), ("axes fraction", "axes fraction"), "offset points",
                color=line.colour, ha="right", va="bottom", fontweight="bold",
            )  # fmt: skip
            at -= 0.05 + 0.012 * len(line.name)
