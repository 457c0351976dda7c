"""The inspection as one HTML file that needs no network: screen, matrices and charts, scrubbed together."""

from __future__ import annotations

import base64
import io
import json
import zlib
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from srwm_agents import html_page
from srwm_agents.inspection.charts import charts_of
from srwm_agents.inspection.layout import layers_to_json
from srwm_agents.inspection.recording import Recording, Track
from srwm_agents.plotting import DIVERGING

MATRIX_BYTES = 12_000_000
"""Of all matrices before compression; longer recordings keep every second, third, … step's."""
SCREEN_BYTES = 2_500_000
SCREEN_SIDES = (320, 256, 192, 128, 96, 64)
"""Heights of screens in pixels: the largest whose files are together no larger than ``SCREEN_BYTES``."""
LEVELS = 127


def make_page(recording: Recording) -> str:
    """The whole file's text."""
    scale = recording.scale()
    content = {
        "axis": recording.axis,
        "first": recording.first,
        "fps": recording.frames_per_second,
        "layers": layers_to_json(list(recording.layers)),
        "scale": scale,
        "diverging": DIVERGING,
        "sizeTitle": recording.size_title,
        "fewShot": recording.is_few_shot,
        "tracks": _tracks(recording, scale),
        "examples": [{"image": _picture(tile.image), "label": tile.label} for tile in recording.examples],
        "queries": [{"image": _picture(tile.image), "label": tile.label} for tile in recording.queries],
        "answers": None if recording.answers is None else np.round(recording.answers, 4).tolist(),
    }
    # "<" would end the script element early if a name held "</script>".
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    folder = files("srwm_agents.inspection")
    section = html_page.Section(
        "",
        (
            html_page.paragraph(recording.about),
            folder.joinpath("page.html").read_text(encoding="utf-8"),
            _notes(recording, scale),
        ),
    )
    return html_page.page(
        recording.heading,
        [section],
        style=folder.joinpath("page.css").read_text(encoding="utf-8"),
        data=data,
        script=folder.joinpath("page.js").read_text(encoding="utf-8"),
    )


def _tracks(recording: Recording, scale: float) -> list[dict[str, Any]]:
    steps = sum(map(len, recording.tracks))
    cells = sum(layer.heads * layer.rows * layer.columns for layer in recording.layers)
    stride = max(1, -(-steps * cells // MATRIX_BYTES))
    side = _side(recording)
    return [_track(recording, track, scale, stride, side) for track in recording.tracks]


def _track(recording: Recording, track: Track, scale: float, stride: int, side: int) -> dict[str, Any]:
    height, width = next((s.screen.shape[:2] for s in track.steps if s.screen is not None), (0, 0))
    return {
        "name": track.name,
        "steps": len(track),
        "screens": [None if s.screen is None else _screen(s.screen, side) for s in track.steps],
        "ratio": width / height if height else 0,
        "ended": np.flatnonzero(track.ended).tolist(),
        "episodes": track.episodes().tolist(),
        "returns": _rounded(track.returns()),
        "stride": stride,
        "matrices": _matrices(track, scale, stride) if recording.layers else "",
        "sizes": [_floats(track.sizes(i)) for i in range(len(recording.layers))],
        "rates": [_floats(track.rates(i)) for i in range(len(recording.layers))],
        "charts": [
            {
                "kind": chart.kind,
                "title": chart.title,
                "low": chart.low,
                "high": chart.high,
                "lines": [
                    {"name": line.name, "colour": line.colour, "values": _rounded(line.values)} for line in chart.lines
                ],
                "marks": [list(marks) for marks in chart.marks],
            }
            for chart in charts_of(recording, track)
        ],
    }


def _matrices(track: Track, scale: float, stride: int) -> str:
    """Every ``stride``-th step's entries as int8 of the scale's 127th parts, as differences to the step before."""
    rows = [
        np.concatenate([quantised(layer.matrix, scale).ravel() for layer in step.layers])
        for step in track.steps[::stride]
    ]
    stacked = np.stack(rows)
    differences = np.diff(stacked, axis=0, prepend=np.zeros_like(stacked[:1]))  # modulo 256
    return base64.b64encode(zlib.compress(differences.tobytes(), 9)).decode()


def quantised(matrix: npt.NDArray[Any], scale: float) -> npt.NDArray[np.int8]:
    """Whole numbers from -127 to 127, which stand for -scale to scale; what is beyond is at the end."""
    finite = np.nan_to_num(matrix.astype(np.float32), nan=0.0, posinf=scale, neginf=-scale)
    return np.rint(np.clip(finite / scale, -1, 1) * LEVELS).astype(np.int8)


def _floats(values: npt.NDArray[Any]) -> dict[str, Any]:
    finite = np.nan_to_num(values).astype("<f4")
    return {"shape": list(values.shape), "data": base64.b64encode(finite.tobytes()).decode()}


def _rounded(values: npt.NDArray[Any]) -> list[float]:
    """With five digits, which is more than a screen shows."""
    return [float(f"{value:.5g}") for value in np.nan_to_num(values).tolist()]


def _side(recording: Recording) -> int:
    """The height of screens, from a few of them."""
    screens = [step.screen for track in recording.tracks for step in track.steps if step.screen is not None]
    if not screens:
        return 0
    sample = screens[:: max(1, len(screens) // 8)]
    for side in SCREEN_SIDES:
        mean = sum(len(_screen(screen, side)) for screen in sample) / len(sample)
        if mean * len(screens) <= SCREEN_BYTES:
            return side
    return SCREEN_SIDES[-1]


def _screen(screen: npt.NDArray[Any], side: int) -> str:
    image = Image.fromarray(screen).convert("RGB")
    if image.height > side:
        image = image.resize((max(1, round(image.width * side / image.height)), side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(image: npt.NDArray[Any]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _notes(recording: Recording, scale: float) -> str:
    """What the page shows, in full sentences."""
    paragraphs = []
    if recording.layers:
        paragraphs.append(
            f"Heat maps: {recording.matrix_title}, after the step, a map a head. One scale for all steps, layers and "
            f"heads: from −{scale:.3g} to {scale:.3g}, which holds 99.5 % of the entries; what is beyond has the "
            f"colour of the end. An entry is known to {scale / LEVELS / 2:.1g}."
        )
        sizes = "Frobenius norms, means over heads"
        if recording.layers[0].is_shift:
            sizes = "Frobenius norms of a block's shift in units of its slow weights', means over heads"
        paragraphs.append(f"{recording.size_title}: {sizes}. Learning rates are those of the step, means over heads.")
    else:
        paragraphs.append("This core keeps no matrix that could be shown: |state| is the norm of all that it keeps.")
    if not recording.is_few_shot:
        paragraphs.append("Dashed lines are ends of episodes. Values are in the units that the agent was trained with.")
    paragraphs.append(
        "Keys: the left and right arrows go one step, with Shift ten; Home and End; the space bar plays and pauses."
    )
    return '<div id="notes">' + "".join(map(html_page.paragraph, paragraphs)) + "</div>"
