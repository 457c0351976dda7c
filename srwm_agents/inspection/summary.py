"""The inspection as one picture for a paper: moments of the screen, matrices at these moments, and the charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from srwm_agents import plotting
from srwm_agents.inspection.charts import charts_of
from srwm_agents.inspection.drawing import (
    Place,
    best_columns,
    charts_height,
    draw_charts,
    grid_size,
    heads_image,
    picture_axes,
)
from srwm_agents.inspection.recording import Recording, Track

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOMENTS = 4
"""Steps at which screen and matrices are shown."""
WIDTH = 1000
LEFT, RIGHT, TITLE, AXIS, SHARE = 104, 16, 24, 48, 60
"""Pixels: names of levels, right margin, a title, the time axis's labels, a chart of lines."""
APART = 18
"""Pixels between moments, and between layers."""
SCREEN, MATRICES = 200, 150
"""Largest heights."""
BAR = 36


def draw_summary(file: Path, recording: Recording) -> None:
    """Write the picture of all tracks, one below the other."""
    heights = [_height(recording, track) for track in recording.tracks]
    size = WIDTH, round(sum(heights)) + TITLE + 8
    dots = plotting.DOTS_PER_INCH
    with plotting.drawing(file, WIDTH / dots, size[1] / dots, photographs=True, placed=True) as figure:
        figure.text(0.5, 1 - 8 / size[1], recording.heading, ha="center", va="top", fontsize=11, parse_math=False)
        top = float(TITLE + 8)
        for track, height in zip(recording.tracks, heights, strict=True):
            _draw_track(figure, size, top, recording, track)
            top += height


def _cell_width() -> float:
    return (WIDTH - LEFT - RIGHT - APART * (MOMENTS - 1)) / MOMENTS


def _screen_height(track: Track) -> float:
    shapes = [step.screen.shape for step in track.steps if step.screen is not None]
    return min(SCREEN, _cell_width() * shapes[0][0] / shapes[0][1]) + APART / 2 if shapes else 0.0


def _grid_heights(recording: Recording) -> list[float]:
    heights = []
    for layer in recording.layers:
        columns, entry = best_columns(layer, MATRICES, _cell_width())
        heights.append(grid_size(layer, columns)[0] * entry + APART)
    return heights


def _height(recording: Recording, track: Track) -> float:
    pictures = _screen_height(track) + sum(_grid_heights(recording)) + (BAR if recording.layers else 0)
    return 2 * TITLE + pictures + charts_height(charts_of(recording, track), SHARE) + AXIS


def _draw_track(figure: Figure, size: tuple[int, int], top: float, recording: Recording, track: Track) -> None:
    begin = top
    if len(recording.tracks) > 1:
        figure.text(LEFT / WIDTH, 1 - top / size[1], track.name, va="top", fontweight="bold", parse_math=False)
    top += TITLE
    moments = np.unique(np.linspace(0, len(track) - 1, min(MOMENTS, len(track))).round().astype(int))
    if track.has_screens or recording.layers:
        for column, moment in enumerate(moments):
            text = f"{recording.axis} {moment + recording.first}"
            figure.text(_left(column) / WIDTH, 1 - top / size[1], text, va="top")
        top += TITLE
    if height := _screen_height(track):
        for column, moment in enumerate(moments):
            screen = track.steps[moment].screen
            if screen is not None:
                wide = min(_cell_width(), (height - APART / 2) * screen.shape[1] / screen.shape[0])
                place = Place(_left(column), top, wide, wide * screen.shape[0] / screen.shape[1])
                picture_axes(figure, size, place).imshow(screen, aspect="auto")
        top += height
    for index, height in enumerate(_grid_heights(recording)):
        _draw_matrices(figure, size, top, recording, track, index, list(moments))
        top += height
    if recording.layers:
        _draw_bar(figure, size, top, recording)
        top += BAR
    place = Place(LEFT, top, WIDTH - LEFT - RIGHT, begin + _height(recording, track) - AXIS - top)
    for panel in draw_charts(figure, size, place, recording, track):
        for moment in moments:
            panel.axvline(moment, color=plotting.PALE, lw=0.7, zorder=0)


def _left(column: int) -> float:
    return LEFT + column * (_cell_width() + APART)


def _draw_matrices(
    figure: Figure,
    size: tuple[int, int],
    top: float,
    recording: Recording,
    track: Track,
    index: int,
    moments: list[int],
) -> None:
    """One layer's heads at each moment, the blocks' names below the first head of each column."""
    layer, scale = recording.layers[index], recording.scale()
    columns, entry = best_columns(layer, MATRICES, _cell_width())
    rows, wide = grid_size(layer, columns)
    name = f"layer {index + 1}" if len(recording.layers) > 1 else "matrices"
    figure.text(12 / WIDTH, 1 - (top + rows * entry / 2) / size[1], name, va="center")
    for column, moment in enumerate(moments):
        place = Place(_left(column), top, wide * entry, rows * entry)
        axes = picture_axes(figure, size, place)
        axes.imshow(
            heads_image(layer, track.steps[moment], index, scale, columns), aspect="auto", interpolation="nearest"
        )
        start = 0
        for block in layer.blocks if len(layer.blocks) > 1 else ():
            axes.annotate(
                block.name, (start + block.columns / 2 - 0.5, rows - 0.5), (0, -2), "data", "offset points",
                ha="center", va="top", color=plotting.INK, annotation_clip=False,
            )  # fmt: skip
            start += block.columns + 1


def _draw_bar(figure: Figure, size: tuple[int, int], top: float, recording: Recording) -> None:
    """The scale of all matrices."""
    scale = recording.scale()
    place = Place(LEFT, top + 6, 220, 10)
    axes = picture_axes(figure, size, place)
    axes.set_axis_on()
    colours = LinearSegmentedColormap.from_list("diverging", plotting.DIVERGING)
    figure.colorbar(ScalarMappable(Normalize(-scale, scale), colours), cax=axes, orientation="horizontal", ticks=[])
    for end, text in ((LEFT - 6, f"−{scale:.3g}"), (LEFT + 226, f"{scale:.3g}   {recording.matrix_title}")):
        figure.text(end / WIDTH, 1 - (top + 11) / size[1], text, ha="right" if end < LEFT else "left", va="center")
