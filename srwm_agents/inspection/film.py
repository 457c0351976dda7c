"""The inspection as a film: screen and matrices on the left and above, charts with a cursor on the right."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from srwm_agents import plotting
from srwm_agents.inspection.charts import Chart, charts_of
from srwm_agents.inspection.drawing import draw_chart, grid_columns, heads_image
from srwm_agents.inspection.recording import Recording, Track

WIDTH, HEIGHT = 1280, 720
MARGIN, TOP = 24, 56
SCREEN = 300
"""Largest height and width of the screen, in pixels."""
CHARTS_LEFT = 700
MOST_STEPS = 3000
"""Of each track: longer recordings are cut, and the caption says so."""
GREY = "#4a5561"

Pixels = npt.NDArray[np.uint8]


class _Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


class _Charts(NamedTuple):
    picture: Pixels
    """[HEIGHT, WIDTH - CHARTS_LEFT, 3]."""
    first: float
    """Where the first step is, in pixels from the left of the film."""
    apart: float
    """Pixels from step to step."""
    span: tuple[int, int]
    """Rows from the top to the bottom of all charts."""


def write_film(file: Path, recording: Recording) -> None:
    """Write an MP4 (H.264, 1280×720), one track after another."""
    scale = recording.scale()
    with iio.imopen(file, "w", plugin="pyav") as writer:
        writer.init_video_stream("libx264", fps=max(1, round(recording.frames_per_second)))
        for track in recording.tracks:
            charts = charts_of(recording, track)
            drawn = _draw_charts(charts, track)
            background = _background(recording, track, drawn)
            for index in range(min(len(track), MOST_STEPS)):
                writer.write_frame(_frame(recording, track, index, background, drawn, scale))


def frame(recording: Recording, track: Track, index: int) -> Pixels:
    """One frame, [720, 1280, 3]."""
    drawn = _draw_charts(charts_of(recording, track), track)
    return _frame(recording, track, index, _background(recording, track, drawn), drawn, recording.scale())


def _draw_charts(charts: list[Chart], track: Track) -> _Charts:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, dots = WIDTH - CHARTS_LEFT, plotting.DOTS_PER_INCH
    # A strip's rows need the height of their names.
    heights = [
        max(1.0, 0.19 * len(c.lines)) if c.kind == "strip" else 0.6 if c.kind == "stems" else 1.0 for c in charts
    ]
    with rc_context({**plotting.STYLE, "font.size": 9}):
        figure = Figure(figsize=(width / dots, HEIGHT / dots), dpi=dots, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.02, hspace=0.0, w_pad=0.12)  # type: ignore[union-attr]
        panels = np.atleast_1d(figure.subplots(len(charts), 1, height_ratios=heights))
        for panel, chart in zip(panels, charts, strict=True):
            draw_chart(panel, chart, track.ended, time_labels=chart is charts[-1])
            if chart.kind == "strip":
                panel.tick_params(axis="y", labelsize=min(9, 0.9 * 72 * 0.19 * HEIGHT / dots / sum(heights) * 1.0))
        panels[-1].set_xlabel("step")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=dots)
        pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(HEIGHT, width, 4)[..., :3]
        (first, _), (second, _) = (panels[-1].transData.transform((step, 0)) for step in (0, 1))
        top, bottom = panels[0].get_window_extent().y1, panels[-1].get_window_extent().y0
    return _Charts(
        pixels.copy(), CHARTS_LEFT + float(first), float(second - first), (HEIGHT - round(top), HEIGHT - round(bottom))
    )


def _background(recording: Recording, track: Track, drawn: _Charts) -> Image.Image:
    """What is the same in all frames of a track."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    canvas.paste(Image.fromarray(drawn.picture), (CHARTS_LEFT, 0))
    draw = ImageDraw.Draw(canvas)
    name = track.name if len(recording.tracks) > 1 or not recording.title.endswith(track.name) else ""
    draw.text(
        (MARGIN, 16), " · ".join(filter(None, [recording.title, name])), fill=plotting.INK, font=_font(18, bold=True)
    )
    for index, box in enumerate(_matrix_boxes(recording)):
        layer = recording.layers[index]
        blocks = ", ".join(block.name for block in layer.blocks)
        title = f"layer {index + 1}" if len(recording.layers) > 1 else "matrices"
        text = (
            f"{title}: {layer.heads} heads, each {blocks}" if len(layer.blocks) > 1 else f"{title}: {layer.heads} heads"
        )
        draw.text((box.left, box.top - 20), text, fill=GREY, font=_font(14))
    return canvas


def _frame(
    recording: Recording, track: Track, index: int, background: Image.Image, drawn: _Charts, scale: float
) -> Pixels:
    canvas = background.copy()
    draw = ImageDraw.Draw(canvas)
    step = track.steps[index]
    if step.screen is not None:
        box = _screen_box(step.screen.shape)
        resample = Image.Resampling.BOX if step.screen.shape[0] >= box.height else Image.Resampling.NEAREST
        canvas.paste(Image.fromarray(step.screen).resize((box.width, box.height), resample), (box.left, box.top))
    left = MARGIN + SCREEN + 24 if track.has_screens else MARGIN
    for row, (name, value) in enumerate(_facts(recording, track, index)):
        draw.text((left, TOP + 44 * row), name, fill=GREY, font=_font(14))
        draw.text((left, TOP + 44 * row + 16), value, fill=plotting.INK, font=_font(18))
    for layer_index, box in enumerate(_matrix_boxes(recording)):
        layer = recording.layers[layer_index]
        picture = Image.fromarray(heads_image(layer, step, layer_index, scale, grid_columns(layer)))
        canvas.paste(picture.resize((box.width, box.height), Image.Resampling.NEAREST), (box.left, box.top))
    x = round(drawn.first + index * drawn.apart)
    draw.line([(x, drawn.span[0]), (x, drawn.span[1])], fill=plotting.INK, width=2)
    return np.asarray(canvas)


def _facts(recording: Recording, track: Track, index: int) -> list[tuple[str, str]]:
    step = track.steps[index]
    if recording.is_few_shot:
        return [("example", f"{index + 1} of {len(track)}"), ("its label", str(recording.examples[index].label))]
    facts = [
        (recording.axis, f"{index}"),
        ("episode", f"{track.episodes()[index]}"),
        ("return so far", f"{track.returns()[index]:.4g}"),
    ]
    if step.value is not None:
        facts.append(("value", f"{step.value:.3g}"))
    if step.probabilities is not None and step.chosen:
        facts.append(("action", ", ".join(recording.action_name(column) for column in step.chosen)))
    return facts


def _screen_box(shape: tuple[int, ...]) -> _Box:
    factor = min(SCREEN / shape[0], SCREEN / shape[1])
    width, height = max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))
    return _Box(MARGIN + (SCREEN - width) // 2, TOP + (SCREEN - height) // 2, width, height)


def _matrix_boxes(recording: Recording) -> list[_Box]:
    """Where each layer's grid of heads stands: below the screen, one under the other."""
    if not recording.layers:
        return []
    top, bottom, right = TOP + SCREEN + 16, HEIGHT - 12, CHARTS_LEFT - 12
    each = (bottom - top) // len(recording.layers)
    boxes = []
    for index, layer in enumerate(recording.layers):
        step = np.zeros((layer.heads, layer.rows, layer.columns), np.float32)
        columns = grid_columns(layer)
        height, width = _grid_size(layer, columns)
        del step
        factor = min((right - MARGIN) / width, (each - 26) / height)
        boxes.append(
            _Box(MARGIN, top + index * each + 22, max(1, round(width * factor)), max(1, round(height * factor)))
        )
    return boxes


def _grid_size(layer: Any, columns: int) -> tuple[int, int]:
    from srwm_agents.inspection.drawing import grid_gaps

    gap_x, gap_y = grid_gaps(layer)
    width = layer.columns + len(layer.blocks) - 1
    rows = -(-layer.heads // columns)
    return rows * (layer.rows + gap_y) - gap_y, columns * (width + gap_x) - gap_x


def _font(size: int, *, bold: bool = False) -> Any:
    """DejaVu Sans, which comes with matplotlib and has all signs that names may have."""
    from matplotlib import font_manager

    name = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(name), size)
