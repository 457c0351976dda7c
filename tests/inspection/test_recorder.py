"""The recorder in a loop of one's own, and what it writes."""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from srwm_agents.cores import make_core
from srwm_agents.inspection import Recorder, Recording
from srwm_agents.inspection.page import make_page, quantised
from srwm_agents.inspection.writing import NAMES, why_no_parquet

from .conftest import record


@pytest.fixture(scope="module")
def written(recording: Recording, tmp_path_factory) -> Path:
    recorder = Recorder(nn.ModuleList([make_core("srwm", input_size=3, hidden_size=8, num_heads=2, ff_size=8)]))
    recorder.recording = recording
    folder = tmp_path_factory.mktemp("written")
    files = recorder.write(folder)
    assert {file.name for file in files} < set(NAMES)
    assert {file.name for file in folder.iterdir()} == {file.name for file in files}
    return folder


def data_of(page: str) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_a_pyarrow_that_cannot_be_imported_is_done_without(tmp_path, monkeypatch) -> None:
    """As pyarrow 26 beside NumPy 1, which training needs."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError('pyarrow requires NumPy 2.0 or newer\\nmore')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    assert why_no_parquet() == "pyarrow requires NumPy 2.0 or newer"


def test_numbers_are_those_that_were_recorded(written: Path, recording: Recording) -> None:
    table = pd.read_csv(written / "inspection.csv")
    assert len(table) == 40
    own = table[table["track"] == "game 1"]
    track = recording.tracks[1]
    assert track.values is not None
    np.testing.assert_allclose(own["value"].to_numpy(), track.values, rtol=1e-5)
    probabilities = own[[f"probability_{i}" for i in range(4)]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(own["action"], [step.chosen[0] for step in track.steps])
    np.testing.assert_array_equal(own["episode"], np.arange(20) // 10 + 1)
    np.testing.assert_allclose(own["return_so_far"].iloc[8:11], [9, 9, 1])
    np.testing.assert_allclose(own["layer2_head1_shift_q"], track.sizes(1)[:, 0, 1], rtol=1e-5)
    np.testing.assert_allclose(own["layer1_head2_rate_b"], track.rates(0)[:, 1, 3], rtol=1e-5)


def test_the_film_has_a_frame_a_step(written: Path) -> None:
    film = iio.imread(written / "inspection.mp4", plugin="pyav")
    assert film.shape == (40, 720, 1280, 3)
    assert film[0].std() > 20
    assert np.abs(film[5].astype(int) - film[6]).mean() > 0.1


def test_the_picture_is_as_wide_as_its_style_says(written: Path) -> None:
    with Image.open(written / "inspection.png") as picture:
        assert picture.width == 1000
        assert picture.height > 1000


def test_the_page_holds_the_matrices(written: Path, recording: Recording) -> None:
    page = (written / "inspection.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "http" not in page.replace("http-equiv", "")
    data = data_of(page)
    scale = data["scale"]
    assert scale == recording.scale()
    for track, shown in zip(recording.tracks, data["tracks"], strict=True):
        entries = np.frombuffer(zlib.decompress(base64.b64decode(shown["matrices"])), np.int8).reshape(20, -1)
        entries = np.cumsum(entries.astype(np.int64), axis=0).astype(np.int8) / 127 * scale
        whole = np.stack([np.concatenate([layer.matrix.ravel() for layer in step.layers]) for step in track.steps])
        inside = np.abs(whole) <= scale
        assert inside.mean() > 0.98
        np.testing.assert_allclose(entries[inside], whole[inside], atol=0.51 * scale / 127 + 1e-3 * scale)
        assert shown["ended"] == [9, 19]
        assert [chart["kind"] for chart in shown["charts"]] == ["stems", "lines", "strip", *["lines"] * 4]


def test_what_is_not_finite_or_named_oddly_does_not_break_the_page(make_vector_agent) -> None:
    recording = record(make_vector_agent(), steps=3, rows=1)
    recording.title = "</script><b>"
    recording.tracks[0].name = "</script>"
    recording.tracks[0].steps[1].layers[0].matrix[0, 0, 0] = np.inf
    page = make_page(recording)
    assert data_of(page)["tracks"][0]["name"] == "</script>"
    assert page.count("</script>") == 2


def test_entries_are_whole_numbers_of_the_scale() -> None:
    entries = quantised(np.array([-3.0, -1.0, 0.0, 0.5, 1.0, np.nan, np.inf]), 1.0)
    assert entries.tolist() == [-127, -127, 0, 64, 127, 0, 127]


@pytest.mark.parametrize("core", ["delta", "sr_delta", "introspective", "lstm", "feedforward", "mlstm"])
def test_every_core_has_a_page(core: str, make_vector_agent) -> None:
    recording = record(make_vector_agent(core), steps=4, rows=1)
    page = make_page(recording)
    assert ("no matrix that could be shown" in page.split('id="data"')[0]) == (core in ("lstm", "feedforward"))
    titles = [chart["title"] for chart in data_of(page)["tracks"][0]["charts"]]
    assert ("|state|" in titles) == (core in ("lstm", "feedforward"))
    assert set(recording.table()) > {"track", "reward", "value", "state_size"}


def test_agents_of_real_numbers_are_recorded(make_vector_agent) -> None:
    actions = {"kind": "box", "shape": [2], "low": [-1.0, 0.0], "high": [1.0, 2.0]}
    recording = record(make_vector_agent(actions=actions), steps=4, rows=1)
    assert recording.tracks[0].stacked("action").shape == (4, 2)  # type: ignore[union-attr]
    assert [chart["title"] for chart in data_of(make_page(recording))["tracks"][0]["charts"]][2] == "action"


def test_several_whole_numbers_stand_side_by_side(make_vector_agent) -> None:
    actions = {"kind": "multi_discrete", "sizes": [2, 3], "start": [0, 1], "shape": [2]}
    agent = make_vector_agent(num_actions=5, actions=actions)
    track = record(agent, steps=6, rows=1).tracks[0]
    np.testing.assert_allclose(track.stacked("probabilities").sum(1), 2, rtol=1e-5)  # type: ignore[union-attr]
    assert all(step.chosen[0] < 2 <= step.chosen[1] < 5 for step in track.steps)


def test_wrong_use_is_named(make_vector_agent) -> None:
    agent = make_vector_agent()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rows": [0, 0]}, r"rows is \[0, 0\]"),
        ({"rows": [-1]}, r"rows is \[-1\]"),
        ({"names": ["a", "b"]}, "names has 2 entries"),
        ({"max_steps": 0}, "max_steps is 0"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            Recorder(agent, **arguments)
    with pytest.raises(ValueError, match="Linear without a core"):
        Recorder(nn.Linear(2, 2))
    recorder = Recorder(agent, rows=[3])
    with pytest.raises(ValueError, match="nothing was recorded"):
        recorder.write("nowhere")
    with recorder, pytest.raises(ValueError, match="has not acted since"):
        recorder.step([0], [False])
    with recorder, pytest.raises(ValueError, match="rows has 3, but the core acts for 2"):
        agent.act({"obs": np.zeros((2, 3), np.float32)})


def test_rows_that_change_places_are_noticed(make_vector_agent) -> None:
    agent = make_vector_agent()
    seen = torch.randn(2, 3)
    with Recorder(agent) as recorder:
        _, state = agent.act({"obs": seen})
        recorder.step([0, 0], [False, False])
        agent.act({"obs": seen}, state.flip(0))
        with pytest.raises(ValueError, match="row 0 of the batch does not go on"):
            recorder.step([0, 0], [False, False])


def test_a_full_recorder_keeps_nothing_more(make_vector_agent) -> None:
    agent = make_vector_agent()
    with Recorder(agent, max_steps=2) as recorder:
        for _ in range(4):
            agent.act({"obs": torch.randn(1, 3)})
            recorder.step([1.0], [True])
    assert len(recorder) == 2
    assert recorder.full
    recorder.clear()
    assert len(recorder) == 0
