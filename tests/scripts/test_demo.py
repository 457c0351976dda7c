"""The demo's page and its running of commands; the training itself is tested where it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "scripts/demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(folder: Path, game: str, end: float) -> None:
    folder.mkdir(parents=True)
    request = {"env": game, "games": game, "core": "srwm", "num_workers": 1, "num_envs_per_worker": 1, "stats_avg": 10}
    (folder / "config.json").write_text(json.dumps({"given": [], "request": request, "num_envs_per_worker": 1}))
    (folder / "sf_log.txt").write_text("")
    rows = [f"{100 * i},{i},{game},{20 + i},{end * i / 10},9," for i in range(11)]
    head = "frames,seconds,game,episodes,mean_return,mean_length,normalised_score"
    (folder / "curves.csv").write_text("\n".join([head, *rows]) + "\n")


def _evaluation(file: Path, **returns: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"games": [{"game": game, "return": value} for game, value in returns.items()]}))


def test_the_page_has_curves_scores_and_film(demo, tmp_path, capsys) -> None:
    _evaluation(tmp_path / "shipped/eval_sampled.json", starpilot=41.0, bigfish=19.5)
    _evaluation(tmp_path / "random/eval_sampled.json", starpilot=1.5, bigfish=0.9)
    _evaluation(tmp_path / "random_jumper/eval_sampled.json", jumper=3.4)
    _evaluation(tmp_path / "random_cartpole/eval_sampled.json", **{demo.CARTPOLE: 22.2})
    (tmp_path / "inspection").mkdir()
    (tmp_path / "inspection/inspection.mp4").write_bytes(b"film")
    for core, end in (("srwm", 480.0), ("feedforward", 44.0)):
        _run(tmp_path / f"cartpole_{core}", demo.CARTPOLE, end)
        _evaluation(tmp_path / f"cartpole_{core}/evaluation/eval_greedy.json", **{demo.CARTPOLE: end})
    _run(tmp_path / "jumper", "jumper", 10.0)
    page = demo.write_page(tmp_path).read_text()
    for text in ("41.0", "19.5", "480.0", "44.0", "22.2", "3.4", "no memory", "<video", "data:video/mp4;base64,"):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
    assert Image.open(tmp_path / "demo.png").width > Image.open(tmp_path / "demo_narrow.png").width == 380
    printed = capsys.readouterr().out
    assert "CartPole without velocities: no memory" in printed


def test_runs_beside_each_other_fail_by_name(demo, tmp_path, capsys) -> None:
    fine, broken = [sys.executable, "-c", "pass"], [sys.executable, "-c", "raise SystemExit('no luck')"]
    demo.run_side_by_side({"a": fine, "b": fine}, tmp_path)
    with pytest.raises(demo.StepError, match="b ended with status 1: no luck"):
        demo.run_side_by_side({"a": fine, "b": broken}, tmp_path)
    with pytest.raises(demo.StepError, match="ended with status 1"):
        demo.run_one(broken)
    assert capsys.readouterr().out.count("\n$ python -c ") == 5


def test_a_run_that_has_no_curve_yet_is_starting(demo, tmp_path) -> None:
    assert demo.latest(tmp_path) == "starting"
    _run(tmp_path / "run", "jumper", 10.0)
    assert demo.latest(tmp_path / "run") == "10.0 after 1,000 frames"
