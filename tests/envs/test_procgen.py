"""The vector environment: contract, determinism, bookkeeping, and errors before C++ can abort."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from srwm_agents.envs import GAMES, make_procgen, normalised_score
from srwm_agents.envs.games import MODES


@pytest.fixture
def env():
    env = make_procgen("bigfish,starpilot", 6, num_levels=20, seed=3, num_threads=1, last_action=True)
    yield env
    env.close()


def run(env, steps: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        actions = rng.integers(0, 15, env.num_envs)
        yield actions, env.step(actions)


def test_observations_match_their_spaces(env) -> None:
    observation, infos = env.reset()
    assert infos == {}
    assert env.observation_space.contains(observation)
    assert observation["obs"].shape == (6, 3, 64, 64)
    for _, (observation, rewards, terminated, truncated, _) in run(env, 5):
        assert env.observation_space.contains(observation)
        assert rewards.shape == terminated.shape == truncated.shape == (6,)
        assert not truncated.any()


def test_environment_i_plays_game_i_modulo_games() -> None:
    env = make_procgen("maze,starpilot", 6, seed=3, num_threads=1)
    assert env.game_index.tolist() == [0, 1] * 3
    before = env.reset()[0]["obs"]
    after = env.step([4] * 6)[0]["obs"]
    env.close()
    # Without actions a maze's image stays the same; starpilot's scrolls.
    assert [(before[i] != after[i]).any() for i in range(6)] == [False, True] * 3


def test_last_reward_and_action_belong_to_the_step_before_and_never_cross_episodes(env) -> None:
    env.reset()
    ended = 0
    for actions, (observation, rewards, terminated, _, _) in run(env, 400):
        expected = np.where(terminated, 0, np.clip(rewards, -1, 1))
        np.testing.assert_array_equal(observation["last_reward"][:, 0], expected)
        np.testing.assert_array_equal(observation["last_action"], np.eye(15)[actions] * ~terminated[:, None])
        ended += terminated.sum()
    assert ended > 0


def test_episode_returns_and_lengths_add_up(env) -> None:
    env.reset()
    returns, lengths = np.zeros(6), np.zeros(6)
    ended = 0
    for _, (_, rewards, terminated, _, infos) in run(env, 400):
        returns += rewards
        lengths += 1
        np.testing.assert_allclose(infos["episode_return"], returns)
        np.testing.assert_array_equal(infos["episode_length"], lengths)
        np.testing.assert_array_equal(infos["episode_ended"], terminated)
        assert ((infos["level_seed"] >= 0) & (infos["level_seed"] < 20)).all()
        returns[terminated], lengths[terminated] = 0, 0
        ended += terminated.sum()
    assert ended > 0


def test_the_same_seed_gives_the_same_run(env) -> None:
    runs = []
    for _ in range(2):
        env.reset(seed=11)
        runs.append([(o["obs"].copy(), r.copy()) for _, (o, r, *_) in run(env, 30)])
    for (image, reward), (other_image, other_reward) in zip(*runs, strict=True):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(reward, other_reward)


def test_reset_begins_new_episodes(env) -> None:
    env.reset()
    for _ in run(env, 3):
        pass
    env.reset()
    for _, (*_, infos) in run(env, 1):
        assert (infos["episode_length"] == 1).all()


def test_tensors_on_request() -> None:
    env = make_procgen("maze", 2, seed=1, num_threads=0, device="cpu")
    arrays = make_procgen("maze", 2, seed=1, num_threads=0)
    observation, _ = env.reset()
    assert isinstance(observation["obs"], torch.Tensor)
    np.testing.assert_array_equal(observation["obs"].numpy(), arrays.reset()[0]["obs"])
    _, rewards, terminated, _, _ = env.step(torch.tensor([1, 2]))
    assert rewards.dtype == torch.float32
    assert terminated.dtype == torch.bool
    env.close()
    arrays.close()


@pytest.mark.gpu
def test_cuda_tensors_equal_arrays() -> None:
    env = make_procgen("maze,heist", 8, seed=1, device="cuda")
    arrays = make_procgen("maze,heist", 8, seed=1)
    env.reset()
    arrays.reset()
    for step in range(20):
        actions = np.full(8, step % 15)
        (observation, *_), (expected, *_) = env.step(actions), arrays.step(actions)
        assert observation["obs"].is_cuda
        np.testing.assert_array_equal(observation["obs"].cpu().numpy(), expected["obs"])
    env.close()
    arrays.close()


def test_render() -> None:
    env = make_procgen("maze", 1, num_threads=0, render_mode="rgb_array")
    env.reset()
    assert env.render().shape == (1, 512, 512, 3)
    env.close()
    env = make_procgen("maze", 1, num_threads=0)
    with pytest.raises(ValueError, match="render_mode"):
        env.render()
    env.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"games": "bigfsh"}, "unknown game 'bigfsh'; did you mean 'bigfish'"),
        ({"games": ""}, "no game named"),
        ({"games": "maze,maze"}, "named 2 times"),
        ({"distribution_mode": "memory"}, "game 'bigfish' has no distribution_mode 'memory', allowed: easy, hard"),
        ({"distribution_mode": "medium"}, "unknown distribution_mode 'medium', allowed: easy"),
        ({"games": "bigfish,maze", "num_envs": 3}, "num_envs is 3, expected a positive multiple of 2"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_levels": -1}, "num_levels is -1"),
        ({"start_level": -5}, "start_level is -5"),
        ({"num_levels": 2**31 - 1, "start_level": 1}, "start_level is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"num_threads": -2}, "num_threads is -2"),
        ({"render_mode": "human"}, "render_mode is 'human'"),
    ],
)
def test_wrong_arguments_are_errors_and_not_aborts(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_procgen(**{"games": "bigfish", "num_envs": 1, **arguments})


def test_wrong_actions_are_errors(env) -> None:
    env.reset()
    with pytest.raises(ValueError, match=r"actions have shape \[5\], expected \[6\]"):
        env.step([0] * 5)
    with pytest.raises(ValueError, match="an action is 15, allowed: 0 to 14"):
        env.step([15] * 6)
    with pytest.raises(ValueError, match="an action is -1"):
        env.step([-1] * 6)


def test_the_table_of_modes_is_the_simulators() -> None:
    """Each mode that the table allows starts in its own process; each one that it forbids aborts the process.

    The processes are forks of one that has loaded the simulator and its pictures, which takes seconds.
    """
    code = (
        "import os, sys; from srwm_agents.envs.simulator import new_simulator\n"
        "def start(game, mode): new_simulator(num=1, env_name=game, distribution_mode=mode, num_threads=0).observe()\n"
        "start('maze', 'easy')\n"
        "for pair in sys.argv[1:]:\n"
        "    if not (child := os.fork()):\n"
        "        start(*pair.split('/'))\n"
        "        os._exit(0)\n"
        "    sys.stderr.write(f'{pair} ended with {os.waitpid(child, 0)[1]}\\n')"
    )
    pairs = (("maze", "memory"), ("bigfish", "memory"), ("starpilot", "extreme"), ("maze", "extreme"))
    command = [sys.executable, "-c", code, *map("/".join, pairs)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    for game, mode in pairs:
        assert (f"{game}/{mode} ended with 0\n" in result.stderr) == (mode in GAMES[game].modes), result.stderr


def test_importing_the_simulator_prints_nothing() -> None:
    code = "from envs import make_procgen; e = make_procgen('maze', 1, num_threads=0); e.reset(); e.close()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == result.stderr == ""


def test_normalised_scores() -> None:
    assert normalised_score("fruitbot", "easy", -1.5) == 0
    assert normalised_score("fruitbot", "easy", 32.4) == 1
    assert normalised_score("leaper", "hard", 1.5) == 0
    assert normalised_score("maze", "memory", 7) == pytest.approx(0.5)
    assert all(set(game.modes) <= set(MODES) and game.easy[0] < game.easy[1] for game in GAMES.values())


def test_spread_starts_leave_environments_at_different_times_of_their_episodes() -> None:
    """Steps to the end of an episode that lasts as long for all, as one of maze does for a policy that stands still."""
    ends = []
    for steps in (0, 400):
        environment = make_procgen("maze", 16, num_levels=1, start_level=3, seed=1, spread_starts=steps)
        environment.reset()
        first_end = np.zeros(16, np.int64)
        for step in range(1, 510):
            _, _, terminated, _, _ = environment.step(np.full(16, 4))
            first_end[(first_end == 0) & terminated] = step
        ends.append(first_end)
        environment.close()
    assert len(set(ends[0])) == 1
    assert len(set(ends[1])) > 12
    assert ends[1].min() < 250 < ends[1].max()


def test_spread_starts_are_reproducible_and_counted_in_lengths() -> None:
    results = []
    for _ in range(2):
        environment = make_procgen("starpilot,maze", 6, num_levels=5, seed=3, spread_starts=30)
        observation, _ = environment.reset()
        infos = environment.step(np.zeros(6, np.int64))[4]
        results.append((observation["obs"], infos["episode_length"]))
        environment.close()
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])
    assert len(set(results[0][1])) > 2
    assert results[0][1].max() <= 31


def test_a_negative_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="spread_starts is -1, expected at least 0"):
        make_procgen("maze", 1, spread_starts=-1)
