"""The command that trains a study's runs: what it would start, and what it collects."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.procgen import train
from experiments.recipes import read_yaml


def test_overrides_come_on_top_of_the_recipe(monkeypatch, tmp_path) -> None:
    started = []
    monkeypatch.setattr(train, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(train, "train", lambda job, gpu, cores, args, until: started.append((job, args)))
    arguments = ["--set", "gamma=.995", "--set", "popart=true", "--name", "far", "--seed", "2", "no_softmax"]
    assert train.main(["--train_dir", str(tmp_path), *arguments]) == 0
    ((job, args),) = started
    assert job.name == "far_seed2"
    assert job.resolved.preset == "fast"
    assert job.resolved.settings["gamma"] == 0.995
    assert job.resolved.settings["popart"] is True
    assert job.resolved.settings["input_norm"] is True
    train.write_draft(tmp_path, job, args, ["--preset=fast"])
    draft = read_yaml(tmp_path / train.DRAFT)
    assert draft["recipe"] == "no_softmax"
    assert draft["settings"] == {"gamma": 0.995, "popart": True}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such"], "unknown recipe 'no_such', allowed: "),
        ([], "name the recipes"),
        (["--set", "gamma=.9", "lstm"], "--set and --name go together"),
        (["--set", "gamma", "--name", "x", "lstm"], "--set is 'gamma', expected SETTING=VALUE"),
        (["--set", "gamma=.9", "--name", "a+b", "lstm"], "--name is 'a+b'"),
        (["--per_gpu", "0", "lstm"], "--per_gpu is 0"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_collect_keeps_earlier_stages(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(train, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(train, "SHIPPED", {})
    experiment = tmp_path / "train_dir" / "lstm"
    (experiment / "evaluation").mkdir(parents=True)
    (experiment / train.DRAFT).write_text("recipe: lstm\nsettings: {}\nseed: 1\n")
    for stage, frames in (("at_1M", 1_000_000), ("last", 2_000_000)):
        (experiment / "curves.csv").write_text(f"frames,game\n{frames},maze\n")
        (experiment / "evaluation/eval_greedy.csv").write_text("split,game,return\ntrain,maze,5.0\n")
        rows = "split,game,episode,return,normalised_score\ntrain,maze,0,5.0,0.0\n"
        (experiment / "evaluation/eval_greedy_episodes.csv").write_text(rows)
        assert train.main(["--collect", "--stage", stage, "--train_dir", str(tmp_path / "train_dir")]) == 0
    config = read_yaml(tmp_path / "runs/lstm/config.yaml")
    assert config["frames"] == 2_000_000
    assert config["evaluations"] == {"at_1M": {"million_frames": 1}, "last": {"million_frames": 2}}
    assert (tmp_path / "runs/lstm/curves.csv.xz").is_file()


def test_help_names_the_recipes() -> None:
    import subprocess

    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "experiments.procgen.train", "--help"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "six_games" in result.stdout
