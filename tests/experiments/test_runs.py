"""The folders of runs: their files, their recipes, and that episodes and summaries agree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.procgen.data import RECIPES, RUNS, mode_of, read_run, runs
from experiments.recipes import read_recipe, read_yaml, recipe_names, resolve
from experiments.runs import CURVES, add_evaluations, read_episodes, read_summary, write_config
from srwm_agents.evaluation.statistics import per_game

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
FOLDERS = sorted(file.parent for file in EXPERIMENTS.glob("**/config.yaml"))
RETIRED = {"actor_value_loss_coeff"}
"""Flags of old commits that runs were made with, and that have gone since."""


def test_names_of_runs_are_short_and_plain() -> None:
    assert len(FOLDERS) > 80
    for folder in FOLDERS:
        assert re.fullmatch(r"\w{1,24}", folder.name), folder


@pytest.mark.parametrize("study", ["procgen", "procgen/critic", "fewshot", "popgym", "adaptation"])
def test_every_recipe_leads_to_a_preset(study: str) -> None:
    folder = EXPERIMENTS / study / "recipes"
    for name in recipe_names(folder):
        resolved = resolve(name, folder)
        assert resolved.preset not in recipe_names(folder)
        assert resolved.settings
        for setting, value in resolved.settings.items():
            assert isinstance(value, str | int | float | bool), (name, setting)
            # YAML 1.1 reads 5e-4 as text.
            assert not re.fullmatch(r"[-+.\de]+", str(value)) or not isinstance(value, str), (name, setting, value)


def test_every_setting_of_a_recipe_is_a_flag_of_training() -> None:
    command = [sys.executable, "train_rl.py", "--help"]
    flags = set(re.findall(r"--(\w+)", subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout))
    folders = (RECIPES, EXPERIMENTS / "procgen" / "critic" / "recipes")
    recipes = [read_recipe(folder / f"{name}.yaml") for folder in folders for name in recipe_names(folder)]
    used = {setting for recipe in recipes for setting in recipe.settings}
    assert "gamma" in used
    assert used - flags == RETIRED


def test_runs_have_recipes_and_their_files_agree() -> None:
    for run in runs():
        folder = RUNS / run.name
        stages = run.config["evaluations"]
        assert run.recipe in recipe_names(RECIPES)
        assert run.recipe == "no_softmax" if run.name == "no_softmax_5M" else run.name.startswith(run.recipe)
        assert set(stages) == set(read_summary(folder)) == set(read_episodes(folder, mode_of(run.settings)))
        curves = folder / CURVES
        last = int(pd.read_csv(curves)["frames"].iloc[-1]) if curves.is_file() else None
        assert run.config["frames"] == last


def test_summaries_are_the_means_of_their_episodes() -> None:
    for run in runs():
        for evaluation in (*run.evaluations, *run.earlier, *run.averaged):
            means = evaluation.episodes.groupby(["split", "game"])[["return", "normalised_score"]].mean()
            for row in evaluation.games.to_dict("records"):
                mean = means.loc[(row["split"], row["game"])]
                assert row["return"] == pytest.approx(mean["return"], rel=1e-12)
                assert row["normalised_score"] == pytest.approx(mean["normalised_score"], rel=1e-9, abs=1e-12)


def test_intervals_are_those_of_the_bootstrap() -> None:
    """On the run with the most evaluations that is short enough to take seconds."""
    (evaluation,) = read_run(RUNS / "maze").evaluations
    pd.testing.assert_frame_equal(per_game(evaluation.episodes), evaluation.games, check_dtype=False, rtol=1e-9)


def test_evaluations_are_added_and_replaced_by_stage(tmp_path) -> None:
    """Nothing is lost between what ``eval_rl.py`` writes and what is read back."""
    reports, run = tmp_path / "evaluation", tmp_path / "run"
    reports.mkdir()
    run.mkdir()
    summary = "split,game,episodes,return\ntrain,maze,2,5.000000000000001\n"
    (reports / "eval_sampled.csv").write_text(summary)
    header = "split,game,episode,return,normalised_score,length,level,completed"
    rows = [
        "train,maze,0,10.0,1.0,17,3,True",
        "train,maze,1,0.1,-0.9800000000000001,500,4,False",
        "test,heist,0,3.5,0.0,9,5,True",
    ]
    (reports / "eval_sampled_episodes.csv").write_text("\n".join([header, *rows]) + "\n")
    assert add_evaluations(run, "at_1M", reports) == ["sampled"]
    assert add_evaluations(run, "last", reports) == ["sampled"]
    (reports / "eval_sampled_episodes.csv").write_text("\n".join([header, *rows[:2]]) + "\n")
    assert add_evaluations(run, "last", reports) == ["sampled"]
    episodes = read_episodes(run, "easy")
    assert [*episodes] == ["at_1M", "last"]
    written = pd.read_csv(reports / "eval_sampled_episodes.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(episodes["last"]["sampled"], written, check_exact=True)
    assert episodes["at_1M"]["sampled"]["episode"].tolist() == [0, 1, 0]
    assert read_summary(run)["last"]["sampled"]["return"].tolist() == [5.000000000000001]
    assert json.loads((run / "summary.json").read_text())
    write_config(run, {"recipe": "é", "seed": 1})
    assert read_yaml(run / "config.yaml") == {"recipe": "é", "seed": 1}


@pytest.mark.parametrize(
    ("text", "named"),
    [("about: no base\n", "'base'"), ("base: fast\nsetings: {}\n", "'setings'"), ("[1, 2]\n", "'base'")],
)
def test_a_wrong_recipe_is_refused_by_name(text: str, named: str, tmp_path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ValueError, match=named):
        read_recipe(tmp_path / "wrong.yaml")


def test_unknown_and_circular_recipes_are_refused(tmp_path) -> None:
    (tmp_path / "one.yaml").write_text("base: two\n")
    (tmp_path / "two.yaml").write_text("base: one\n")
    with pytest.raises(ValueError, match="'one' builds on itself"):
        resolve("one", tmp_path)
    with pytest.raises(ValueError, match="unknown recipe 'three', allowed: one, two"):
        resolve("three", tmp_path)


def test_the_checkout_without_agents_stays_small() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.splitlines() if not name.startswith("agents/")]
    # Code, tests and pictures grow with each study (a run is 4 KB); a large file of raw numbers shows here. 7.2 MB were
    # reached with 213 runs and 522 Python files.
    assert sum(file.stat().st_size for file in files if file.is_file()) < 7.5e6


def test_numbers_in_yaml_are_read_as_the_package_reads_them(tmp_path) -> None:
    """PyYAML alone takes 5e-4 for text."""
    (tmp_path / "small_steps.yaml").write_text("base: fast\nabout: ''\nsettings:\n  learning_rate: 5e-4\n")
    assert resolve("small_steps", tmp_path).settings == {"learning_rate": 0.0005}
