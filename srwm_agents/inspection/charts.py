"""What is drawn over time beside the matrices: the same charts on the page, in the film and in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from srwm_agents.inspection.layout import Floats
from srwm_agents.inspection.recording import Recording, Track
from srwm_agents.plotting import COLOURS, INK

BLOCK_COLOURS = {"y": COLOURS[0], "q": COLOURS[1], "k": COLOURS[2], "b": COLOURS[3], "W": COLOURS[6]}
MOST_TRACES = 6
"""Lines of one chart of observations or actions: more cannot be told apart."""


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str
    colour: str
    values: Floats
    """[T]."""


@dataclass(frozen=True)
class Chart:
    """One chart on the common time axis."""

    kind: str
    """ "stems" (bars from zero), "lines", or "strip" (a row of shades for each line, from 0 to 1)."""
    title: str
    lines: Sequence[Line]
    low: float
    high: float
    marks: Sequence[Sequence[int]] = field(default=())
    """Of a strip: rows that are marked at each step."""


def charts_of(recording: Recording, track: Track) -> list[Chart]:
    """The charts of a track, from the top."""
    charts = (
        [] if recording.is_few_shot else [_lines("stems", "reward", [Line("reward", INK, track.rewards)], zero=True)]
    )
    if track.values is not None:
        charts.append(_lines("lines", "value", [Line("value", COLOURS[0], track.values)]))
    if (probabilities := track.stacked("probabilities")) is not None:
        rows = [Line(recording.action_name(i), INK, column) for i, column in enumerate(probabilities.T)]
        marks = [step.chosen for step in track.steps]
        charts.append(Chart("strip", recording.probabilities_title, rows, 0.0, 1.0, marks))
    for name, labels in (("action", recording.action_names), ("observation", recording.observation_names)):
        numbers = track.stacked(name)
        if numbers is not None and (name == "action" or not track.has_screens):
            columns = numbers.T[:MOST_TRACES]
            traces = [Line(labels[i] if labels else str(i), COLOURS[i], c) for i, c in enumerate(columns)]
            charts.append(_lines("lines", name, traces))
    for index, layer in enumerate(recording.layers):
        sizes = track.sizes(index).mean(1)
        lines = [_block(block.name, sizes[:, i]) for i, block in enumerate(layer.blocks)]
        charts.append(_lines("lines", recording.size_title + _place(recording, index), lines, zero=True))
    for index, layer in enumerate(recording.layers):
        if layer.rates:
            rates = track.rates(index).mean(1)
            lines = [_block(name, rates[:, i]) for i, name in enumerate(layer.rates)]
            charts.append(Chart("lines", f"learning rate b{_place(recording, index)}", lines, 0.0, 1.0))
    if not recording.layers:
        charts.append(_lines("lines", "|state|", [Line("state", COLOURS[0], track.state_sizes)], zero=True))
    return charts


def _place(recording: Recording, index: int) -> str:
    return f", layer {index + 1}" if len(recording.layers) > 1 else ""


def _block(name: str, values: Floats) -> Line:
    return Line(name, BLOCK_COLOURS.get(name, COLOURS[5]), values)


def _lines(kind: str, title: str, lines: Sequence[Line], *, zero: bool = False) -> Chart:
    """A chart whose range is that of its lines; with ``zero`` it contains 0."""
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        high = low + 1.0
    return Chart(kind, title, lines, low, high)
