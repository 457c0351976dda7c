"""The inspection as one picture for a paper: moments of the screen, matrices at these moments, and the charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize

from srwm_agents import plotting
from srwm_agents.inspection.charts import charts_of
from srwm_agents.inspection.drawing import draw_chart, grid_columns, heads_image
from srwm_agents.inspection.recording import Recording, Track

MOMENTS = 6
"""Steps at which screen and matrices are shown."""
WIDTH = 10.0


def draw_summary(file: Path, recording: Recording) -> None:
    """Write the picture of all tracks, one below the other."""
    panels = [charts_of(recording, track) for track in recording.tracks]
    heights = [_height(recording, track, charts) for track, charts in zip(recording.tracks, panels, strict=True)]
    with plotting.drawing(file, WIDTH, sum(heights) + 0.4) as figure:
        figure.suptitle(recording.title, parse_math=False)
        parts = np.atleast_1d(figure.subfigures(len(panels), 1, height_ratios=heights))
        for part, track, charts in zip(parts, recording.tracks, panels, strict=True):
            _draw_track(part, recording, track, charts)


def _rows(recording: Recording, track: Track, charts: list[Any]) -> list[float]:
    """Heights of the rows in inches."""
    moments = [1.5] if track.has_screens else []
    matrices = [1.0 for _ in recording.layers]
    over_time = [max(0.9, 0.165 * len(chart.lines)) if chart.kind == "strip" else 0.85 for chart in charts]
    return [*moments, *matrices, *over_time]


def _height(recording: Recording, track: Track, charts: list[Any]) -> float:
    return sum(_rows(recording, track, charts)) + 0.3


def _draw_track(part: Any, recording: Recording, track: Track, charts: list[Any]) -> None:
    if len(recording.tracks) > 1:
        part.suptitle(track.name, parse_math=False)
    scale = recording.scale()
    rows = _rows(recording, track, charts)
    pictures = len(rows) - len(charts)
    above, below = part.subfigures(2, 1, height_ratios=[max(0.1, sum(rows[:pictures])), sum(rows[pictures:])])
    moments = np.unique(np.linspace(0, len(track) - 1, min(MOMENTS, len(track))).round().astype(int))
    if pictures:
        grid = above.subplots(pictures, len(moments), squeeze=False, height_ratios=rows[:pictures])
        for column, moment in enumerate(moments):
            step = track.steps[moment]
            cells = iter(grid[:, column])
            if track.has_screens:
                panel = next(cells)
                if step.screen is not None:
                    panel.imshow(step.screen)
                panel.set_axis_off()
            for index, layer in enumerate(recording.layers):
                panel = next(cells)
                columns = max(1, grid_columns(layer) // 2)
                panel.imshow(heads_image(layer, step, index, scale, columns), interpolation="nearest")
                panel.set_xticks([])
                panel.set_yticks([])
                panel.grid(False)
                for spine in panel.spines.values():
                    spine.set_visible(False)
                if column == 0:
                    panel.set_ylabel(f"layer {index + 1}" if len(recording.layers) > 1 else "matrices")
            grid[0, column].set_title(f"{recording.axis} {moment + (1 if recording.is_few_shot else 0)}", fontsize=9)
        if recording.layers:
            colours = LinearSegmentedColormap.from_list("diverging", plotting.DIVERGING)
            bar = ScalarMappable(Normalize(-scale, scale), colours)
            above.colorbar(bar, ax=list(grid[-len(recording.layers) :].flat), label=_bar_label(recording), pad=0.01)
    axes = np.atleast_1d(below.subplots(len(charts), 1, sharex=False, height_ratios=rows[pictures:]))
    for panel, chart in zip(axes, charts, strict=True):
        draw_chart(panel, chart, track.ended, time_labels=chart is charts[-1])
        for moment in moments:
            panel.axvline(moment, color=plotting.PALE, lw=0.6)
        if chart.kind == "strip":
            panel.tick_params(axis="y", labelsize=9)
    axes[-1].set_xlabel(recording.axis)


def _bar_label(recording: Recording) -> str:
    return "shift of a weight" if recording.layers[0].is_shift else "entry of W"
