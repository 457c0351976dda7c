"""``compare``: groups of runs, the files that it leaves, and wrong uses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from srwm_agents.__main__ import main
from srwm_agents.comparison.groups import games_in_common, parse_groups
from srwm_agents.comparison.report import compare
from srwm_agents.comparison.scores import MEAN


def run(tmp_path: Path, *words: str) -> int:
    return main(["compare", *words, "--train_dir", str(tmp_path)])


def test_groups_of_seeds_leave_pictures_tables_and_a_page(make_run, tmp_path, capsys) -> None:
    for seed in (1, 2, 3):
        make_run(f"srwm_seed{seed}", {"maze": 8.0 + seed, "heist": 6.0}, frames=1000 * seed, seed=seed)
        make_run(f"lstm_seed{seed}", {"maze": 5.0, "heist": 3.0}, frames=2000, seed=seed, core="lstm", gamma=0.9)
    assert run(tmp_path, "srwm=srwm_seed*", "<l&stm>=lstm_seed1,lstm_seed3") == 0
    out = capsys.readouterr().out
    folder = tmp_path / "comparison"
    names = {"curves.png", "curves_narrow.png", "curves_of_groups.csv", "scores.csv", "table.csv", "improvement.csv"}
    assert {file.name for file in folder.iterdir()} == names | {"settings.csv", "comparison.html"}
    assert all(f"wrote {folder / name}" in out for name in names)
    assert Image.open(folder / "curves.png").size[0] == 960
    assert Image.open(folder / "curves_narrow.png").size[0] == 380

    table = {row["group"]: row for row in pd.read_csv(folder / "table.csv").to_dict("records")}
    assert {group: row["runs"] for group, row in table.items()} == {"srwm": 3, "<l&stm>": 2}
    srwm = table["srwm"]
    # At 1,000 frames; of the last 5 % of rows, those from 96 to 100 % count where a run has 100 rows until there.
    scores = pd.read_csv(folder / "scores.csv")
    assert (scores["frames"] == 1000).all()
    assert len(scores) == 5 * 2
    of_maze = {row["run"]: row for row in scores[scores["game"] == "maze"].to_dict("records")}
    first, third = of_maze["srwm_seed1"], of_maze["srwm_seed3"]
    assert first["mean_return"] == pytest.approx(9 * 0.98)
    assert first["normalised_score"] == pytest.approx(0.9 * 0.98)
    assert third["mean_return"] == pytest.approx(11 * 0.325, abs=0.1)  # a third of the way
    assert srwm["mean"] == pytest.approx(float(scores["normalised_score"][scores["group"] == "srwm"].mean()))
    assert srwm["mean_low"] < srwm["mean"] < srwm["mean_high"]
    pairs = pd.read_csv(folder / "improvement.csv")
    assert pairs["improvement"].sum() == pytest.approx(1)

    settings = pd.read_csv(folder / "settings.csv", dtype=str).to_numpy().tolist()
    assert settings == [["core", "srwm", "lstm"], ["seed", "1, 2, 3", "1, 3"]]
    assert "older than these settings: gamma=0.9" in " ".join(out.split())
    assert "Intervals of fewer than 5 runs are too narrow." in " ".join(out.split())

    page = (folder / "comparison.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)|https?://|<script", page)
    assert "&lt;l&amp;stm&gt;" in page
    assert "<l&stm>" not in page
    assert 'name="viewport"' in page


def test_curves_are_means_with_the_range_of_runs(make_run, tmp_path) -> None:
    make_run("a1", {"maze": 10.0, "heist": 0.0}, frames=1000)
    make_run("a2", {"maze": 20.0, "heist": 0.0}, frames=2000)
    groups = parse_groups(["a=a*"], tmp_path)
    result = compare(groups, games_in_common(groups))
    assert [curve.panel for curve in result.curves["a"]] == [MEAN, "maze", "heist"]
    maze = result.curves["a"][1]
    assert maze.runs.shape == (2, 101)
    assert np.isnan(maze.runs[0, 52:]).all()
    assert not np.isnan(maze.runs[1]).any()
    table = maze.table()
    assert table["frames"].max() == 1000  # beyond, one run alone is no mean of both
    last = table.iloc[-1]
    assert (last["mean"], last["low"], last["high"]) == pytest.approx((10.0, 10.0, 10.0), abs=0.2)
    middle = table.iloc[25]
    assert (middle["low"], middle["high"]) == pytest.approx((5.0, 5.0), abs=0.2)
    assert result.curves["a"][0].table().iloc[-1]["mean"] == pytest.approx(0.5, abs=0.02)


def test_one_environment_without_a_scale(make_run, tmp_path, capsys) -> None:
    for name, end in (("with", 400.0), ("without", 40.0)):
        make_run(name, {"CartPole-v1": end}, normalised=False, env="CartPole-v1")
    assert run(tmp_path, "with", "without", "--at_frames=500", f"--output={tmp_path / 'out'}") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "mean return on CartPole-v1, 500 frames" in out
    assert "One run has no interval" in out
    assert "no setting differs" in out
    table = pd.read_csv(tmp_path / "out" / "table.csv").set_index("group")
    assert table.loc["with", "mean"] == pytest.approx(200, rel=0.05)
    assert table["mean_low"].isna().all()
    assert table.loc["without", "improvement"] == 0
    assert set(pd.read_csv(tmp_path / "out" / "curves_of_groups.csv")["panel"]) == {"CartPole-v1"}
    assert Image.open(tmp_path / "out" / "curves.png").size[0] == 640


def test_runs_by_path_pattern_and_with_a_sign_in_the_name(make_run, tmp_path) -> None:
    for name in ("a=1", "b1", "b2", "deep/c"):
        make_run(name)

    def found(*words: str) -> dict[str, list[str]]:
        groups = parse_groups(words, tmp_path)
        return {group.label: [run.folder.name for run in group.runs] for group in groups}

    assert found("a=1") == {"a=1": ["a=1"]}
    assert found("b=b?", "deep/c") == {"b": ["b1", "b2"], "deep/c": ["c"]}
    assert found(str(tmp_path / "b1"), f"x={tmp_path}/deep/*") == {str(tmp_path / "b1"): ["b1"], "x": ["c"]}


def test_games_in_common_can_be_named(make_run, tmp_path, capsys) -> None:
    make_run("one", {"maze": 8.0, "heist": 6.0, "miner": 3.0})
    make_run("other", {"heist": 5.0, "maze": 9.0})
    assert run(tmp_path, "one", "other") == 1
    assert "--games maze,heist compares those in common" in capsys.readouterr().err
    assert run(tmp_path, "one", "other", "--games=heist") == 0
    assert set(pd.read_csv(tmp_path / "comparison" / "scores.csv")["game"]) == {"heist"}


def few_shot(folder: Path) -> None:
    (folder / "f").mkdir()
    (folder / "f" / "settings.json").write_text('{"validation_episodes": 3}')


def damage(folder: Path) -> None:
    (folder / "srwm" / "curves.csv").write_text("frames\n")


def lose(folder: Path) -> None:
    (folder / "srwm" / "curves.csv").unlink()


def break_settings(folder: Path) -> None:
    (folder / "srwm" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (None, ["srmw"], "no run 'srmw' in {0}, did you mean 'srwm'?"),
        (None, ["zzz"], "no run 'zzz' in {0}; there: lstm, memory, other, srwm"),
        (None, ["x=zz*"], "no run matches 'zz*' in {0}; there: lstm"),
        (None, ["x="], "'x=' has no runs, expected LABEL=RUN,RUN"),
        (None, ["=srwm"], "'=srwm' has no label, expected LABEL=RUN,RUN"),
        (None, [""], "the name of a run is empty"),
        (None, ["{0}"], "{0} is no experiment's folder"),
        (None, ["srwm", "x=srwm"], "the run 'srwm' is in 'srwm' and again in 'x', expected in one group"),
        (None, ["x=srwm", "x=lstm"], "'x' is named twice"),
        (None, ["srwm", "other"], "'other' is on leaper, but 'srwm' on maze, heist: only runs on the same games"),
        (None, ["srwm", "memory"], "'memory' has distribution_mode 'memory', but 'srwm' 'easy'"),
        (None, ["srwm", "--games=mase"], "--games names 'mase', which 'srwm' does not play, did you mean 'maze'?"),
        (None, ["srwm", "--games=,"], "--games is ',', expected some of the runs' games"),
        (None, ["srwm", "lstm", "--at_frames=901"], "--at_frames is 901, but 'lstm' has 900, allowed: at most that"),
        (None, ["srwm", "--at_frames=0"], "--at_frames is 0.0, expected more than 0"),
        (None, ["srwm", "--at_frames=nan"], "--at_frames is nan, expected more than 0"),
        (None, ["srwm", "--seed=-1"], "--seed is -1, allowed: 0 to 2147483647"),
        (few_shot, ["f"], "'f' is a few-shot experiment, expected runs that play"),
        (lose, ["srwm"], "'srwm' cannot be compared: no learning curves yet: {0}/srwm/curves.csv is missing"),
        (damage, ["srwm"], "'srwm' cannot be compared: {0}/srwm/curves.csv lacks the column"),
        (break_settings, ["srwm"], "'srwm' cannot be compared: config.json is no JSON"),
    ],
)
def test_errors_are_one_line(make_run, tmp_path, capsys, prepare, words, message: str) -> None:
    make_run("srwm")
    make_run("lstm", frames=900)
    make_run("other", {"leaper": 3.0})
    make_run("memory", distribution_mode="memory")
    if prepare is not None:
        prepare(tmp_path)
    assert run(tmp_path, *(word.format(tmp_path) for word in words)) == 1
    error = capsys.readouterr().err
    assert error.startswith("python -m srwm_agents compare: error: ")
    assert message.format(tmp_path) in error
    assert error.count("\n") == 1
    assert not (tmp_path / "comparison").exists()


def test_too_many_groups_unknown_flags_and_help(make_run, tmp_path, capsys) -> None:
    for i in range(9):
        make_run(f"run{i}")
    assert run(tmp_path, *(f"run{i}" for i in range(9))) == 1
    assert "9 groups, at most 8 can be told apart" in capsys.readouterr().err
    for arguments, status in ((["--trian_dir=x", "a"], 1), ([], 1), (["--help"], 0)):
        with pytest.raises(SystemExit) as stopped:
            main(["compare", *arguments])
        assert stopped.value.code == status
    assert "(default: train_dir)" in capsys.readouterr().out


def test_a_flat_configuration_of_an_earlier_version_is_read(make_run, tmp_path) -> None:
    folder = make_run("old")
    request = json.loads((folder / "config.json").read_text())["request"]
    (folder / "config.json").write_text(json.dumps(request | {"cli_args": {"seed": 1}, "git_hash": "x", "seed": 4}))
    make_run("new")
    groups = parse_groups(["old", "new"], tmp_path)
    settings = compare(groups, games_in_common(groups)).settings
    assert settings.to_numpy().tolist() == [["seed", "4", "1"]]
