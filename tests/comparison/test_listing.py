"""``runs``: what lies in a train_dir, and that looking at it changes nothing."""

from __future__ import annotations

import json
import os
import threading
from fcntl import LOCK_SH, flock
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from srwm_agents.__main__ import main
from srwm_agents.comparison.listing import age
from srwm_agents.experiment_folders import FEWSHOT, TRAINING, ExperimentError, ExperimentFolder, lock_holder


def listed(capsys, train_dir: Path) -> dict[str, dict[str, Any]]:
    assert main(["runs", "--train_dir", str(train_dir), "--json"]) == 0
    return {record["name"]: record for record in json.loads(capsys.readouterr().out)}


def content(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


def test_states(make_run, tmp_path, capsys) -> None:
    make_run("stopped", saved=990)
    make_run("finished", saved=2000, core="lstm", seed=5)
    make_run("begun")
    make_run("sweep/one", {"CartPole-v1": 475.0}, normalised=False, saved=1000, games="maze,heist", env="CartPole-v1")
    now = make_run("now", saved=2000)
    (tmp_path / "not_a_run").mkdir()
    with ExperimentFolder(now, TRAINING):
        before = content(tmp_path)
        runs = listed(capsys, tmp_path)
        assert content(tmp_path) == before
    assert {name: run["state"] for name, run in runs.items()} == {
        "stopped": "stopped",
        "finished": "finished",
        "begun": "stopped",
        "sweep/one": "stopped",
        "now": "training",
    }
    assert runs["now"]["detail"].startswith(f"process {os.getpid()} on ")
    stopped = runs["stopped"]
    assert (stopped["frames"], stopped["of"], stopped["core"], stopped["seed"]) == (990, 2000, "srwm", 1)
    assert (stopped["plays"], stopped["score"], stopped["score_is"]) == ("maze,heist", pytest.approx(0.7), "normalised")
    assert 0 <= stopped["age_seconds"] < 100
    assert (runs["begun"]["frames"], runs["begun"]["age_seconds"]) == (1000, None)
    assert (runs["sweep/one"]["plays"], runs["sweep/one"]["score"]) == ("CartPole-v1", 475.0)
    assert runs["sweep/one"]["score_is"] == "return"


def test_what_is_damaged_is_said(make_run, tmp_path, capsys) -> None:
    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-200])

    cut(make_run("checkpoint", saved=10) / "checkpoint_p0" / f"checkpoint_{7:09d}_10.pth")
    (make_run("settings", saved=10) / "config.json").write_text('{"num_envs_per_worker"')
    (make_run("no_settings", saved=10) / "config.json").unlink()
    (make_run("curves", saved=10) / "curves.csv").write_text("frames,game\nx,y\n")
    (make_run("whole", saved=10) / "curves.csv").unlink()  # a run that was stopped before its first row
    runs = listed(capsys, tmp_path)
    assert runs.pop("whole")["state"] == "stopped"
    assert {run["state"] for run in runs.values()} == {"damaged"}
    assert "is cut short or no checkpoint" in runs["checkpoint"]["detail"]
    assert "config.json is no JSON" in runs["settings"]["detail"]
    assert "config.json cannot be read: No such file" in runs["no_settings"]["detail"]
    assert "lacks the column 'mean_return'" in runs["curves"]["detail"]
    assert runs["settings"]["score"] is None
    assert main(["runs", "--train_dir", str(tmp_path)]) == 0
    assert "settings: config.json is no JSON" in capsys.readouterr().out


def test_few_shot_runs_are_listed(tmp_path, capsys) -> None:
    folder = tmp_path / "glyphs"
    folder.mkdir()
    settings = {"dataset": "glyphs", "core": "delta", "train_steps": 50, "seed": 3, "validation_episodes": 9}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "curves.csv").write_text("step,accuracy,validation_accuracy\n10,.5,.25\n20,.6,.5\n30,.7,\n")
    runs = listed(capsys, tmp_path)
    assert {name: runs["glyphs"][name] for name in ("kind", "core", "plays", "frames", "of", "score", "score_is")} == {
        **{"kind": "fewshot", "core": "delta", "plays": "glyphs", "frames": 30, "of": 50},
        **{"score": 0.5, "score_is": "accuracy"},
    }
    with ExperimentFolder(folder, FEWSHOT):
        assert listed(capsys, tmp_path)["glyphs"]["state"] == "training"


def test_the_latest_comes_first(make_run, tmp_path, capsys) -> None:
    for name, when in (("old", 1_000), ("new", 3_000), ("middle", 2_000)):
        (file,) = make_run(name, saved=10).glob("checkpoint_p0/*")
        os.utime(file, (when, when))
    assert list(listed(capsys, tmp_path)) == ["new", "middle", "old"]
    assert main(["runs", "--train_dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.index("new") < out.index("middle") < out.index("old")
    assert "10/2k" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_long_names_are_whole_in_a_narrow_terminal(make_run, tmp_path, capsys) -> None:
    env = "a_package/AnEnvironmentOfALongName-v0"
    make_run("a_run_of_a_long_name_" * 2, {env: 4.0}, normalised=False, env=env, core="feedforward")
    assert main(["runs", "--train_dir", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert all(len(line) <= 80 for line in lines)
    columns = [lines[0].index(name) for name in ("run", "core", "plays", "state")]
    run, _, plays = ("".join(line[a:b].strip() for line in lines[2:-1]) for a, b in pairwise(columns))
    assert (run, plays) == ("a_run_of_a_long_name_" * 2, env)


def test_a_folder_without_runs_and_one_that_is_missing(tmp_path, capsys) -> None:
    assert main(["runs", "--train_dir", str(tmp_path)]) == 0
    assert f"no runs in {tmp_path}" in capsys.readouterr().out
    assert main(["runs", "--train_dir", str(tmp_path / "missing")]) == 1
    assert capsys.readouterr().err == f"python -m srwm_agents runs: error: no folder {tmp_path}/missing\n"


def test_a_look_at_the_lock_does_not_refuse_a_start(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert lock_holder(folder, TRAINING) is None
    assert not list(folder.iterdir())
    with (folder / TRAINING.lock).open("w") as lock:
        flock(lock, LOCK_SH)
        looking = threading.Timer(0.01, lock.close)  # as long as a look takes
        looking.start()
        with ExperimentFolder(folder, TRAINING):
            assert lock_holder(folder, TRAINING) is not None
            with pytest.raises(ExperimentError, match="is in use"), ExperimentFolder(folder, TRAINING):
                pass
        looking.join()


def test_ages() -> None:
    assert [age(seconds) for seconds in (-1, 40, 720, 3 * 3600, 5 * 86_400)] == ["0 s", "40 s", "12 min", "3 h", "5 d"]
