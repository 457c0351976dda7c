"""The page in a real Chromium, at a laptop's and a phone's width: scrubbing, hovering, keys, no error, no network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srwm_agents.inspection import Recording
from srwm_agents.inspection.drawing import palette
from srwm_agents.inspection.page import LEVELS, make_page, quantised

ROOT = Path(__file__).parents[2]
BROWSER = Path(os.environ.get("SRWM_BROWSER_FOLDER", ROOT / ".browser"))
"""Where ``make test-browser`` installs Chromium and what drives it."""
WIDTHS = {"laptop": (1280, 800), "phone": (390, 844)}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        shutil.which("node") is None or not (BROWSER / "node_modules/puppeteer-core").is_dir(),
        reason=f"no browser in {BROWSER}: make test-browser installs one (it needs npm)",
    ),
]


def drive(page: Path, size: tuple[int, int]) -> dict[str, Any]:
    """What a browser of this size has seen."""
    script = (Path(__file__).parent / "drive_page.mjs").read_text()
    # Chromium's libraries come with the package, which unpacks them where it believes to be on AWS.
    environment = os.environ | {"AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
    command = ["node", "--input-type=module", "-e", script, "--", str(page), *map(str, size)]
    result = subprocess.run(command, cwd=BROWSER, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=WIDTHS)
def seen(request, recording: Recording, tmp_path_factory) -> dict[str, Any]:
    page = tmp_path_factory.mktemp("page") / "inspection.html"
    page.write_text(make_page(recording))
    return drive(page, WIDTHS[request.param]) | {"file": page, "asked": WIDTHS[request.param][0]}


def test_no_error_and_no_network(seen) -> None:
    assert seen["problems"] == []
    assert seen["requests"] == [f"file://{seen['file']}"]


def test_keys_scrub(seen) -> None:
    assert seen["keys"] == [1, 11, 10, 19, 19, 0, 0]


def test_the_slider_scrubs(seen) -> None:
    assert seen["slider"] in (9, 10)
    assert seen["afterSlider"] == seen["slider"] + 1


def test_charts_tell_and_scrub(seen) -> None:
    assert seen["chartTip"].startswith("step 5: ")
    assert seen["stayed"] == seen["afterSlider"]
    assert (seen["pressed"], seen["dragged"]) == (5, 15)
    assert seen["cursor"] == pytest.approx((15 + 0.5) / 20, abs=0.01)
    assert seen.get("touched", 10) == 10


def test_the_numbers_are_those_of_the_step(seen, recording: Recording) -> None:
    track = recording.tracks[0]
    readout = dict(seen["readout"])
    assert (readout["step"], readout["episode"]) == ("15", "2")
    assert track.values is not None
    assert float(readout["value"].replace("−", "-")) == pytest.approx(track.values[15], rel=0.01)
    assert readout["action"] == str(track.steps[15].chosen[0])
    shown = re.search(
        r"layer 2y ([\d.]+)q ([\d.]+)", next(n for n in seen["numbers"] if "shift" in n and "layer 2" in n)
    )
    assert shown is not None
    assert [float(n) for n in shown.groups()] == pytest.approx(track.sizes(1)[15].mean(0)[:2], rel=0.01)


def test_hovering_over_a_matrix_tells_its_entry(seen, recording: Recording) -> None:
    place, entry, size, rate = seen["cellTip"].splitlines()
    found = re.fullmatch(r"W_(\w)\[(\d+), (\d+)\], layer 1, head 1", place)
    assert found is not None
    block, row, column = found[1], int(found[2]), int(found[3])
    layer, shown = recording.layers[0], recording.tracks[0].steps[15].layers[0]
    names = [b.name for b in layer.blocks]
    start = sum(b.columns for b in layer.blocks[: names.index(block)])
    value, scale = float(shown.matrix[0, row, start + column]), recording.scale()
    number = float(entry.replace("−", "-").lstrip("≥≤ "))
    assert number == pytest.approx(np.clip(value, -scale, scale), abs=0.02 * scale)
    assert float(size.split(": ")[1]) == pytest.approx(shown.sizes[0, names.index(block)], rel=0.01)
    assert float(rate.split(": ")[1]) == pytest.approx(shown.rates[0, names.index(block)], rel=0.01)
    level = int(quantised(shown.matrix[0, row, start + column], scale))
    assert np.abs(np.array(seen["pixel"][:3]) - palette()[level + LEVELS]).max() <= 1
    assert seen["tipGone"]


def test_it_plays_and_pauses(seen) -> None:
    assert seen["played"] >= 3
    assert seen["paused"] == seen["played"]
    assert seen["spaceOnButton"] == "Pause"


def test_the_other_track_is_shown(seen) -> None:
    assert seen["tab"] == "game 1"
    assert seen["secondImage"] == "data:image/webp"


def test_it_fits_and_can_be_read(seen) -> None:
    assert seen["width"] == seen["asked"]
    assert seen["smallestFont"] >= 12
    assert seen["cut"] == []
