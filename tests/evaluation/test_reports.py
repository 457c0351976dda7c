"""Reports of one evaluation are found together, wherever their writer is killed or fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import srwm_agents.files
from srwm_agents.evaluation.reports import write_reports
from srwm_agents.fewshot.reporting import write_reports as write_fewshot_reports
from srwm_agents.files import write_together
from srwm_agents.report_names import kept, report_name


def write(folder: Path, value: float) -> None:
    table = pd.DataFrame({"value": [value]})
    write_reports(folder, "eval", table, table, table, {"value": value})


def values(folder: Path) -> set[float]:
    document = json.loads((folder / "eval.json").read_text())
    found = {document["value"], document["games"][0]["value"]}
    return found | {float(pd.read_csv(folder / name)["value"][0]) for name in ("eval.csv", "eval_episodes.csv")}


def test_a_kill_never_mixes_files_that_belong_together(tmp_path, kill_everywhere) -> None:
    folder, found = tmp_path / "reports", []

    def put(text: str) -> None:
        write_together({folder / "a": text, folder / "b": text})

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        put("1")

    def check() -> None:
        found.append({file.read_text() for file in folder.glob("[ab]")} if (folder / "b").exists() else set())
        put("3")
        assert {file.name: file.read_text() for file in folder.iterdir()} == {"a": "3", "b": "3"}

    assert kill_everywhere(prepare, lambda: put("2"), check) > 20
    assert [one for one in found if len(one) > 1] == []
    assert (found[0], found[-1]) == ({"1"}, {"2"})
    assert found.count({"1"}) > found.count(set())  # most of the work is done before


@pytest.mark.parametrize("failing", range(4))
def test_a_full_disk_leaves_the_reports_that_were_there(tmp_path, monkeypatch, failing: int) -> None:
    write(tmp_path, 1.0)
    synced, sync = [], srwm_agents.files._sync

    def full(path: Path) -> None:
        synced.append(path)
        if len(synced) > failing:
            raise OSError(28, "No space left on device", str(path))
        sync(path)

    monkeypatch.setattr("srwm_agents.files._sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, 2.0)
    assert not (tmp_path / "eval.json").exists() or values(tmp_path) == {1.0}
    assert (tmp_path / "eval.json").exists() == (failing < 3)  # until all are on the disk
    assert {file.name for file in tmp_path.iterdir()} <= {"eval.csv", "eval_episodes.csv", "eval.json"}


def test_content_that_cannot_be_made_leaves_what_was_there(tmp_path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("cannot be drawn")

    write_together({tmp_path / "a": "1", tmp_path / "b": b"1"})
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        write_together({tmp_path / "a": "2", tmp_path / "b": fail})
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "1", "b": "1"}


def test_few_shot_reports_are_written_together(tmp_path) -> None:
    curve = pd.DataFrame(
        {"segment": "glyphs", "axis": ["examples", "shots"], "x": 0, "accuracy": 0.5, "interval": 0.1, "episodes": 9}
    )
    about = {"agent": "a [red] [/b]", "ways": 5, "shots": 1, "split": "val"}
    files = write_fewshot_reports(tmp_path / "new", "eval", curve, curve, about)
    assert [file.name for file in files] == ["eval.csv", "eval.png", "eval.json"]
    assert {file.name for file in (tmp_path / "new").iterdir()} == {file.name for file in files}
    assert (tmp_path / "new/eval.png").read_bytes().startswith(b"\x89PNG")


def evaluation(episodes: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    games = pd.DataFrame({"split": "train", "game": ["maze", "heist"], "episodes": [episodes // 2, episodes // 2]})
    return pd.DataFrame({"return": [1.0] * episodes}), games


def test_a_smaller_evaluation_stands_beside_a_larger_one(tmp_path) -> None:
    def put(episodes: int) -> list[str]:
        files = write_reports(tmp_path, "eval", *evaluation(episodes), pd.DataFrame(), {})
        assert len(pd.read_csv(files[1])) == episodes
        return [file.name for file in files]

    usual = ["eval.csv", "eval_episodes.csv", "eval.json"]
    assert put(8) == usual
    smaller = ["eval_of_4.csv", "eval_of_4_episodes.csv", "eval_of_4.json"]
    assert put(4) == smaller
    assert put(4) == smaller  # which its equal replaces
    assert len(pd.read_csv(tmp_path / "eval_episodes.csv")) == 8
    assert put(8) == usual
    assert put(10) == usual
    (tmp_path / "eval.json").write_text("{")  # what is damaged is not worth keeping
    assert put(2) == usual


def test_a_smaller_few_shot_evaluation_stands_beside_a_larger_one(tmp_path) -> None:
    about = {"agent": "a", "ways": 5, "shots": 1, "split": "val"}
    for episodes, name in ((9, "eval"), (3, "eval_of_3"), (12, "eval")):
        curve = pd.DataFrame({"segment": "g", "axis": ["shots"], "x": 0, "accuracy": 0.5, "interval": 0.1})
        curve["episodes"] = episodes
        files = write_fewshot_reports(tmp_path, "eval", curve, curve, about)
        assert files[-1].stem == name
        assert kept("eval", files[-1]) == (
            None if name == "eval" else f"kept {tmp_path / 'eval'}.*, which has more episodes"
        )


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"games": 3}', '{"games": [{}]}', '{"games": [{"episodes": "x"}]}']
)
def test_a_report_that_is_none_has_no_episodes(tmp_path, content: str) -> None:
    (tmp_path / "eval.json").write_text(content)
    assert report_name(tmp_path, "eval", "games", 0) == "eval"
