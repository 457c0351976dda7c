"""POPGym's harness: which runs a command line means, what it collects, and how a run is scored."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import places, studies
from experiments.popgym import addresses, table, train
from experiments.popgym.tasks import GROUPS
from experiments.recipes import read_yaml, recipe_names
from srwm_agents import Agent, AgentConfig
from srwm_agents.layers import SRWMLayer
from srwm_agents.spaces.actions import ActionSpec


def test_groups() -> None:
    assert len(GROUPS["twelve"]) == 12
    assert len(GROUPS["all"]) == len(set(GROUPS["all"])) == 42
    assert train.STUDY.tasks("check, RepeatPreviousEasy,bandits") == [*GROUPS["check"], *GROUPS["bandits"]]
    assert {task for group in GROUPS.values() for task in group} == set(GROUPS["all"])


def test_jobs_go_task_by_task() -> None:
    found = train.STUDY.jobs("srwm,gru", "RepeatPreviousEasy,RepeatPreviousHard", "1,2")
    assert [(job.group, job.task) for job in found[:3]] == [
        ("srwm_s1", "RepeatPreviousEasy"),
        ("gru_s1", "RepeatPreviousEasy"),
        ("srwm_s1", "RepeatPreviousHard"),
    ]
    assert len(found) == 8
    flags = found[1].flags(1000)
    assert flags[0] == "--preset=popgym"
    assert {"--core=gru", "--env=popgym:popgym-RepeatPreviousEasy-v0", "--seed=1", "--stats_avg=1000"} <= set(flags)


@pytest.mark.parametrize("recipe", [name for name in recipe_names(train.STUDY.recipes) if name != "common"])
def test_recipes_are_of_cores(recipe: str) -> None:
    (job,) = train.STUDY.jobs(recipe, "RepeatFirstEasy", "1")
    assert job.resolved.settings["core"] == recipe


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipes=no_such"], "unknown recipe 'no_such', allowed: "),
        (["--tasks=Repeat"], "unknown task 'Repeat', allowed: check, twelve"),
        (["--tasks="], "no task named"),
        (["--seeds=one"], "--seeds is 'one', expected numbers, comma-separated"),
        (["--per_gpu=0"], "--per_gpu is 0"),
        (["--runs=elsewhere"], "--runs has no effect without --collect"),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def curve(task: str, returns: list[float], episodes: list[int]) -> str:
    head = "frames,seconds,game,episodes,mean_return,mean_length,normalised_score\n"
    rows = zip(returns, episodes, strict=True)
    return head + "".join(f"{1000 * i},{i}.0,popgym:popgym-{task}-v0,{n},{r},50.0,\n" for i, (r, n) in enumerate(rows))


def test_runs_are_collected_and_scored(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(train, "STUDY", dataclasses.replace(train.STUDY, runs=tmp_path / "runs"))
    monkeypatch.setattr(studies, "visible_gpus", list)
    numbers = {"RepeatPreviousEasy": ([0.9, 0.2, 0.5, 0.4], [10, 999, 1000, 5000]), "RepeatFirstEasy": ([0.1], [5])}

    def run(command, place, log, until) -> int:
        folder, task = (next(f for f in command if f.startswith(s)).partition("=")[2] for s in ("--train_dir", "--exp"))
        (tmp_path / "t" / folder / task / "curves.csv").write_text(curve(task, *numbers[task]))
        assert place.gpu is None
        return 0

    monkeypatch.setattr(places, "run", run)
    where = f"--train_dir={tmp_path / 't'}"
    for task in numbers:
        assert train.main([where, "--recipes=gru", f"--tasks={task}", "--frames=4000"]) == 0
        assert train.main([where, "--collect"]) == 0
    config = read_yaml(tmp_path / "runs/gru_s1/config.yaml")
    assert (config["recipe"], config["seed"]) == ("gru", 1)
    assert config["tasks"]["RepeatPreviousEasy"]["frames"] == 3000
    assert set(config["tasks"]) == set(numbers)
    found = table.scores(tmp_path / "runs").set_index("task")
    assert found.loc["RepeatPreviousEasy", "score"] == 0.5  # the best of the points with a full window
    assert pd.isna(found.loc["RepeatFirstEasy", "score"])
    shown = list(table.lines(table.scores(tmp_path / "runs")))
    assert "| RepeatPreviousEasy | GRU | 1 | 0.0 | 0.500 | 1.000 | 1.000 |" in shown
    assert any(line.startswith("| RepeatFirstEasy | GRU | 1 | ") and "| – | 1.000 | 1.000 |" in line for line in shown)


def test_what_is_read_is_recorded_and_drawn(monkeypatch, tmp_path) -> None:
    """Of an agent with fresh weights, whose rates of all blocks but outputs are those that it began with."""
    monkeypatch.setattr(addresses, "FOLDER", tmp_path)
    monkeypatch.setattr(addresses, "PICTURE", tmp_path / "addresses.png")
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ff_size": 16, "input_softmax": False}
    config: dict[str, Any] = {
        "core": "srwm",
        "core_settings": {**sizes, "input_norm": True, "unit_keys": True, "beta_bias": -3.0},
        "num_actions": 4,
        "image_shape": (),
        "extras": {"episode_step": 16, "last_reward": 1},
        "categories": {"obs/0": (2,), "obs/1": (4,)},
        "actions": ActionSpec.discrete(4).to_json(),
        "environment": {"env": "experiments.reversal.environment:Reversal-v0", "env_kwargs": {"length": 3}},
    }
    agent = Agent(AgentConfig(**config)).eval()
    for layer in agent.core.memory_layers:
        assert isinstance(layer, SRWMLayer)
        layer.w_beta.data[:, 1:] = 0
    addresses.record(agent, layer=1, head=1, episodes=4)
    addresses.draw()
    rates = pd.read_csv(tmp_path / "rates.csv")
    assert len(rates) == 4
    # The matrix is rewritten, and with it the rates: by little in 6 steps.
    np.testing.assert_allclose(rates[["outputs", "queries"]], [[0.5, 0.047]] * 4, atol=0.05)
    matches = pd.read_csv(tmp_path / "matches.csv.xz")
    assert (matches["written"] < matches["read"]).all()
    assert len(matches) == 15  # of 6 steps
    assert (tmp_path / "addresses.png").stat().st_size > 5000


def test_places_share_the_cores() -> None:
    at = places.places(["3", "5"], 2)
    assert [place.gpu for place in at] == ["3", "5", "3", "5"]
    assert all(place.cores for place in at)
    assert [place.gpu for place in places.places([], 2)] == [None, None]
