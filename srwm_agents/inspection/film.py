"""The inspection as a film: screen and matrices on the left, charts with a cursor on the right."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from srwm_agents import plotting
from srwm_agents.inspection.drawing import Place, best_columns, draw_charts, grid_size, heads_image, palette
from srwm_agents.inspection.recording import Recording, Step, Track

SIZE = WIDTH, HEIGHT = 1280, 720
MARGIN, TOP = 24, 60
SCREEN = 300
"""Largest height and width of the screen, in pixels."""
LEFT_PART = 640
"""Pixels of screen and matrices; charts stand to the right."""
CHARTS = Place(LEFT_PART + 120, 18, WIDTH - LEFT_PART - 120 - 20, HEIGHT - 18 - 44)
GREY = "#4a5561"

Pixels = npt.NDArray[np.uint8]


class _Scene(NamedTuple):
    """What is the same in all frames of a track."""

    recording: Recording
    track: Track
    background: Image.Image
    first: float
    """Where the first step is on the charts, in pixels from the left of the film."""
    apart: float
    """Pixels from step to step."""
    grids: list[tuple[Place, int]]
    """Where each layer's heads are, and how many stand side by side."""
    scale: float
    episodes: npt.NDArray[np.int_]
    returns: npt.NDArray[np.float32]


def write_film(file: Path, recording: Recording) -> None:
    """Write an MP4 (H.264, 1280×720), one track after another."""
    with _encoder(file, max(1, round(recording.frames_per_second))) as write:
        for track in recording.tracks:
            scene = make_scene(recording, track)
            for index in range(len(track)):
                write(draw_frame(scene, index))


@contextmanager
def _encoder(file: Path, fps: int) -> Iterator[Callable[[Pixels], None]]:
    """A function that adds a frame to a film; the file is whole when the block ends.

    PyAV itself, and not imageio around it as for ``eval --video``: imageio takes no preset, and x264's usual one needs
    three times as long for pictures of this size.
    """
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"

        def write(pixels: Pixels) -> None:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))

        yield write
        container.mux(stream.encode())


def make_scene(recording: Recording, track: Track) -> _Scene:
    """Draw what stays, and find the places of what changes."""
    picture, first, apart = _draw_charts(recording, track)
    canvas = Image.new("RGB", SIZE, "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, 18), f"{recording.title}: {track.name}", fill=plotting.INK, font=_font(18, bold=True))
    grids = _grids(recording, has_screen=track.has_screens)
    for index, (place, _) in enumerate(grids):
        name = f"layer {index + 1}, " if len(grids) > 1 else ""
        blocks = recording.layers[index].blocks
        text = f"{name}{recording.layers[index].heads} heads" + (
            f", each {' '.join(block.name for block in blocks)}" if len(blocks) > 1 else ""
        )
        draw.text((place.left, place.top - 22), text, fill=GREY, font=_font(14))
    if grids:
        _draw_scale(canvas, recording)
    return _Scene(recording, track, canvas, first, apart, grids, recording.scale(), track.episodes(), track.returns())


def _draw_scale(canvas: Image.Image, recording: Recording) -> None:
    """The scale of all matrices, below them."""
    draw, font, scale, top = ImageDraw.Draw(canvas), _font(14), recording.scale(), HEIGHT - 28
    low = f"−{scale:.3g}"
    left = MARGIN + round(draw.textlength(low, font)) + 8
    draw.text((MARGIN, top), low, fill=GREY, font=font)
    canvas.paste(Image.fromarray(palette()[None]).resize((150, 12)), (left, top + 3))
    draw.text((left + 158, top), f"{scale:.3g}   {recording.matrix_title}", fill=GREY, font=font)


def draw_frame(scene: _Scene, index: int) -> Pixels:
    """One frame, [720, 1280, 3]."""
    recording, track = scene.recording, scene.track
    canvas = scene.background.copy()
    draw = ImageDraw.Draw(canvas)
    step = track.steps[index]
    if step.screen is not None:
        _paste_screen(canvas, step.screen)
    left = MARGIN + SCREEN + 32 if track.has_screens else MARGIN
    for row, (name, value) in enumerate(_facts(scene, index)):
        across, down = (0, row) if track.has_screens else (row, 0)
        x, y = left + 120 * across, TOP + 50 * down
        draw.text((x, y), name, fill=GREY, font=_font(14))
        draw.text((x, y + 18), value, fill=plotting.INK, font=_font(18))
    for layer, (place, columns) in enumerate(scene.grids):
        picture = Image.fromarray(heads_image(recording.layers[layer], step, layer, scene.scale, columns))
        size = round(place.width), round(place.height)
        canvas.paste(picture.resize(size, Image.Resampling.NEAREST), (round(place.left), round(place.top)))
    x = round(scene.first + index * scene.apart)
    draw.line([(x, CHARTS.top), (x, CHARTS.top + CHARTS.height - 8)], fill=plotting.INK, width=2)
    return np.asarray(canvas)


def _draw_charts(recording: Recording, track: Track) -> tuple[Image.Image, float, float]:
    """The charts on a white film, where the first step is, and how far steps are apart."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    dots = plotting.DOTS_PER_INCH
    with rc_context(dict[Any, Any](plotting.STYLE)):
        figure = Figure(figsize=(WIDTH / dots, HEIGHT / dots), dpi=dots)
        last = draw_charts(figure, SIZE, CHARTS, recording, track)[-1]
        buffer = io.BytesIO()
        figure.savefig(buffer, format="rgba", dpi=dots)
        (first, _), (second, _) = (last.transData.transform((step, 0)) for step in (0, 1))
    pixels = np.frombuffer(buffer.getvalue(), np.uint8).reshape(HEIGHT, WIDTH, 4)[..., :3]
    return Image.fromarray(np.ascontiguousarray(pixels)), float(first), float(second - first)


def _paste_screen(canvas: Image.Image, screen: Pixels) -> None:
    factor = min(SCREEN / screen.shape[0], SCREEN / screen.shape[1])
    width, height = max(1, round(screen.shape[1] * factor)), max(1, round(screen.shape[0] * factor))
    resample = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    picture = Image.fromarray(screen).resize((width, height), resample)
    canvas.paste(picture, (MARGIN + (SCREEN - width) // 2, TOP + (SCREEN - height) // 2))


def _facts(scene: _Scene, index: int) -> list[tuple[str, str]]:
    """What stands beside the screen: names and values."""
    recording, track = scene.recording, scene.track
    step: Step = track.steps[index]
    if recording.is_few_shot:
        return [("example", f"{index + 1} of {len(track)}"), ("its label", str(recording.examples[index].label))]
    facts = [
        (recording.axis, str(index)),
        ("episode", str(scene.episodes[index])),
        ("return so far", f"{scene.returns[index]:.4g}"),
    ]
    if step.value is not None:
        facts.append(("value", f"{step.value:.3g}"))
    if step.probabilities is not None and step.chosen:
        facts.append(("action", ", ".join(recording.action_name(column) for column in step.chosen)))
    return facts


def _grids(recording: Recording, *, has_screen: bool) -> list[tuple[Place, int]]:
    """Where each layer's heads stand: below the screen, one layer under the other."""
    if not recording.layers:
        return []
    top = TOP + (SCREEN + 14 if has_screen else 80)
    each = (HEIGHT - 36 - top) / len(recording.layers)
    grids = []
    for index, layer in enumerate(recording.layers):
        columns, entry = best_columns(layer, each - 36, LEFT_PART - MARGIN)
        height, width = grid_size(layer, columns)
        grids.append((Place(MARGIN, top + index * each + 28, width * entry, height * entry), columns))
    return grids


@cache
def _font(size: int, *, bold: bool = False) -> Any:
    """DejaVu Sans, which comes with matplotlib and has all signs that names may have."""
    from matplotlib import font_manager

    name = font_manager.FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")
    return ImageFont.truetype(font_manager.findfont(name), size)
