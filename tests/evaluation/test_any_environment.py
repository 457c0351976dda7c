"""eval_rl.py in Gymnasium environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import torch
from small_environments import ACTIONS, OBSERVATIONS

import eval_rl
from srwm_agents import Agent, AgentConfig, save_agent
from srwm_agents.evaluation.arenas import EPISODES, GymnasiumArena
from srwm_agents.evaluation.rollouts import Forgetful, RandomPolicy, play
from srwm_agents.spaces.gymnasium_spaces import actions_of, leaves_of

SMALL = "small_environments:test/Small-v0"
SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}


def make_agent(folder: Path, observations: str, actions: str, **changes: Any) -> Agent:
    """An agent with fresh weights for an environment of these spaces, saved in ``folder``."""
    torch.manual_seed(0)
    entries = {leaf.name: leaf.entry for leaf in leaves_of(OBSERVATIONS[observations])}
    spec = actions_of(ACTIONS[actions])
    images = {name: entry.shape for name, entry in entries.items() if entry.kind == "image"}
    config: dict[str, Any] = {
        "core": "srwm",
        "core_settings": SETTINGS,
        "num_actions": spec.parameters,
        "actions": spec.to_json(),
        "image_shape": images.pop("obs", ()),
        "images": images,
        "extras": {"last_reward": 1, **{n: e.width for n, e in entries.items() if e.kind == "vector"}},
        "categories": {name: entry.sizes for name, entry in entries.items() if entry.kind == "categories"},
        "encoder": "convnet_atari",
        "environment": {"env": SMALL, "env_kwargs": {"observations": observations, "actions": actions}},
    }
    agent = Agent(AgentConfig(**{**config, **changes})).eval()
    save_agent(agent, folder)
    return agent


def evaluate(folder: Path, *more: str) -> int:
    return eval_rl.main(["--agent", str(folder / "a"), "--device=cpu", "--episodes=7", "--max_envs=3", *more])


@pytest.mark.parametrize(
    ("observations", "actions"), [("tuple", "multi"), ("dict", "box"), ("discrete", "discrete"), ("image", "discrete")]
)
def test_an_agent_plays_as_many_episodes_as_asked(observations: str, actions: str, tmp_path, capsys) -> None:
    make_agent(tmp_path / "a", observations, actions)
    assert evaluate(tmp_path, "--forget") == 0
    folder = tmp_path / "evaluation/a"
    episodes = pd.read_csv(folder / "eval_sampled_forget_episodes.csv")
    assert len(episodes) == 7
    assert episodes["normalised_score"].isna().all()
    assert episodes["length"].isin([3, 5]).all()
    about = json.loads((folder / "eval_sampled_forget.json").read_text())
    assert (about["env"], about["forget"]) == (SMALL, True)
    assert about["aggregate"] == []
    row = about["games"][0]
    assert row["return"] == pytest.approx(episodes["return"].mean())
    assert row["return_low"] <= row["return"] <= row["return_high"]
    shown = capsys.readouterr().out
    assert "norm." not in shown
    assert "nan" not in shown


def test_an_agent_gets_the_entries_that_it_was_trained_with(tmp_path) -> None:
    """One that is added to the observation alone would be an input that the environment does not give."""
    make_agent(tmp_path / "a", "discrete", "discrete", extras={"last_reward": 1, "last_action": 3, "episode_step": 16})
    assert evaluate(tmp_path) == 0


def test_numbers_do_not_depend_on_processes(tmp_path) -> None:
    agent = make_agent(tmp_path / "a", "tuple", "multi")
    kwargs = {"observations": "tuple", "actions": "multi"}
    frames = [
        play(agent, GymnasiumArena(SMALL, kwargs, last_reward=True, processes=n), EPISODES, episodes=8, seed=s)
        for n, s in ((0, 1), (2, 1), (0, 2))
    ]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert (frames[0]["return"] != frames[2]["return"]).any()


def test_without_memory_every_step_is_the_first(tmp_path) -> None:
    agent = make_agent(tmp_path / "a", "vector", "discrete")
    seen: list[np.ndarray] = []

    class Recorder:
        def act(self, observation: Any, state: Any = None, *, resets: Any = None, **options: Any) -> Any:
            seen.append(resets)
            return agent.act(observation, state, resets=resets, **options)

    play(Forgetful(Recorder()), GymnasiumArena(SMALL, last_reward=True), EPISODES, episodes=2)
    assert all(resets.all() for resets in seen)


@pytest.mark.parametrize("actions", ACTIONS)
def test_the_random_policy_draws_what_the_environment_takes(actions: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    kwargs = json.dumps({"actions": actions})
    assert eval_rl.main(["--agent=random", f"--env={SMALL}", f"--env_kwargs={kwargs}", "--episodes=4"]) == 0
    (file,) = (tmp_path / "evaluation/random").glob(f"*_actions_{actions}/eval_sampled_episodes.csv")
    assert len(pd.read_csv(file)) == 4
    drawn, _ = RandomPolicy(actions_of(ACTIONS[actions])).act({"obs": np.zeros((500, 3))})
    assert len(np.unique(drawn, axis=0)) > 2


def test_another_environment_of_the_same_spaces(tmp_path, capsys) -> None:
    make_agent(tmp_path / "a", "vector", "discrete", environment={})
    assert evaluate(tmp_path, f"--env={SMALL}") == 0
    assert SMALL in capsys.readouterr().out
    # Not among the reports of the environment that the agent was trained in.
    assert len(list((tmp_path / "evaluation/a").glob("*/eval_sampled.csv"))) == 1
    assert not (tmp_path / "evaluation/a/eval_sampled.csv").exists()


def test_a_video(tmp_path) -> None:
    make_agent(tmp_path / "a", "vector", "discrete")
    assert evaluate(tmp_path, "--video", "--video_seconds=0.5") == 0
    frames = iio.imread(tmp_path / "evaluation/a/gameplay_sampled.mp4", plugin="pyav")
    assert len(frames) == 10  # 20 a second, as the environment says
    assert frames.shape[1:3] == (256 + 18, 3 * 384)  # pictures of 20×30


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--games=maze"], f"--games has no effect on {SMALL}: it is for Procgen; leave it out"),
        (["--num_levels=3"], f"--num_levels has no effect on {SMALL}"),
        (
            ["--env=CartPole-v1"],
            "does not fit CartPole-v1: observation 'obs' has shape [4], the agent",
        ),
        (["--env=CartPol-v1"], "no environment 'CartPol-v1'"),
        (['--env_kwargs={"actions": "multi"}'], "the environment's actions are MultiDiscrete([2 3])"),
        (['--env_kwargs={"size": 1}'], 'Small-v0 cannot be made with {"size": 1}: TypeError'),
        (["--env_kwargs=3"], "'3' is no JSON object"),
        (
            ["--env=small_environments:test/WithoutPictures-v0", "--video"],
            "--video: small_environments:test/WithoutPictures-v0 has no render mode rgb_array, it has: none",
        ),
        (['--env_kwargs={"fails_at": 2}'], "Small-v0 raised RuntimeError: out of order"),
    ],
)
def test_what_is_wrong_is_one_line(flags: list[str], message: str, tmp_path, capsys) -> None:
    make_agent(tmp_path / "a", "vector", "discrete")
    try:
        assert evaluate(tmp_path, *flags) == 1
    except SystemExit as error:
        assert error.code == 1  # noqa: PT017
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_environments_flags_are_not_procgens(tmp_path, capsys) -> None:
    assert eval_rl.main(["--agent=random", "--games=maze", '--env_kwargs={"size": 1}']) == 1
    assert "--env_kwargs has no effect on Procgen" in capsys.readouterr().err
    assert eval_rl.main(["--agent=random"]) == 1
    assert "--agent random needs --games, or --env" in capsys.readouterr().err
