"""gymnasium's wrappers and vectors around our environments, an agent in them, and Stable-Baselines3's vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError

from srwm_agents import AgentPolicy, load_agent
from srwm_agents.envs import make_procgen

ROOT = Path(__file__).parents[2]
WRAPPERS: Any = gymnasium.wrappers
pytestmark = pytest.mark.usefixtures("registered")


def vector_wrapper(name: str, earlier_name: str) -> Any:
    """A wrapper of vector environments by its name in gymnasium 1.x, or in 0.29."""
    vector = getattr(WRAPPERS, "vector", None)
    return getattr(WRAPPERS, earlier_name) if vector is None else getattr(vector, name)


@pytest.fixture
def starpilot():
    env = make_procgen("starpilot", 4, num_levels=5, seed=0, num_threads=0, last_action=True)
    yield env
    env.close()


def test_same_step_autoreset_is_declared(starpilot, gymnasium_1: bool) -> None:
    if gymnasium_1:
        assert str(starpilot.metadata["autoreset_mode"]) == "AutoresetMode.SAME_STEP"
    assert starpilot.observation_space["obs"].shape == (4, 3, 64, 64)
    assert starpilot.action_space.shape == (4,)
    assert starpilot.render_mode is None


def test_statistics_of_a_vector(starpilot) -> None:
    env = vector_wrapper("RecordEpisodeStatistics", "RecordEpisodeStatistics")(starpilot)
    env.reset()
    ended = np.zeros(4, int)
    for _ in range(500):
        *_, terminated, _, infos = env.step(np.full(4, 4))
        assert ("episode" in infos) == terminated.any()
        if terminated.any():
            ended += terminated
            np.testing.assert_array_equal(infos["_episode"], terminated)
            for key, own in (("r", "episode_return"), ("l", "episode_length")):
                np.testing.assert_allclose(infos["episode"][key], np.where(terminated, infos[own], 0))
    assert (ended > 1).all()


def test_statistics_of_a_single_environment() -> None:
    env = WRAPPERS.RecordEpisodeStatistics(gymnasium.make("srwm/Procgen-starpilot-easy-v0", num_levels=5))
    env.reset(seed=0)
    total, length, terminated, info = 0.0, 0, False, {}
    while not terminated:
        _, reward, terminated, _, info = env.step(4)
        total, length = total + reward, length + 1
    assert [np.asarray(info["episode"][key]).item() for key in "rl"] == [total, length]
    env.close()


def test_final_observations_and_infos(starpilot, gymnasium_1: bool) -> None:
    key = "final_obs" if gymnasium_1 else "final_observation"
    before, _ = starpilot.reset()
    ended = 0
    for _ in range(300):
        observation, rewards, terminated, _, infos = starpilot.step(np.full(4, 4))
        plain = {name for name in infos if not name.startswith("_")}
        assert {name for name in infos if name.startswith("_")} == {f"_{name}" for name in plain}
        assert ({key, "final_info"} <= plain) == terminated.any()
        if terminated.any():
            np.testing.assert_array_equal(infos[f"_{key}"], terminated)
            np.testing.assert_array_equal(infos["_final_info"], terminated)
        for i in np.flatnonzero(terminated):
            final, info = infos[key][i], infos["final_info"]
            assert starpilot.single_observation_space.contains(final)
            np.testing.assert_array_equal(final["obs"], before["obs"][i])
            assert final["last_reward"] == np.clip(rewards[i], -1, 1)
            assert final["last_action"].argmax() == 4
            value = info["episode_length"][i] if gymnasium_1 else info[i]["episode_length"]
            assert value == infos["episode_length"][i]
        if gymnasium_1 and terminated.any():
            np.testing.assert_array_equal(infos["final_info"]["_episode_length"], terminated)
        for i in np.flatnonzero(~terminated) if terminated.any() else ():
            assert infos[key][i] is None
        ended += terminated.sum()
        before = observation
    assert ended > 0


def test_infos_as_a_list(starpilot) -> None:
    env = vector_wrapper("DictInfoToList", "VectorListInfo")(starpilot)
    env.reset()
    for _ in range(100):
        *_, terminated, _, infos = env.step(np.full(4, 4))
        for ends, info in zip(terminated, infos, strict=True):
            assert ("final_info" in info) == ends
            assert ends == info["episode_ended"]
            assert 0 <= info["level_seed"] < 5


def test_a_seed_is_one_number_for_all(starpilot) -> None:
    first, _ = starpilot.reset(seed=np.int64(7))
    starpilot.step([4] * 4)
    again, _ = starpilot.reset(seed=7)
    np.testing.assert_array_equal(first["obs"], again["obs"])
    for wrong in ([1, 2, 3, 4], 1.5, "7"):
        with pytest.raises(ValueError, match=r"seed is .*, allowed: one number from 0 to 2147483647, for all"):
            starpilot.reset(seed=wrong)
    with pytest.raises(ValueError, match="seed is -1, allowed: 0 to 2147483647"):
        starpilot.reset(seed=-1)


def test_actions_are_whole_numbers(starpilot) -> None:
    for wrong in ([np.nan, 1, 1, 1], np.full(4, 1.5), np.full(4, True)):
        with pytest.raises(ValueError, match="expected whole numbers from 0 to 14"):
            starpilot.step(wrong)


def test_nothing_works_after_close(starpilot) -> None:
    single = gymnasium.make("srwm/Procgen-maze-easy-v0", disable_env_checker=True)
    single.reset()
    for env, action in ((starpilot, [4] * 4), (single, 4)):
        env.close()
        env.close()
        for call in (lambda env=env, action=action: env.step(action), env.reset):
            with pytest.raises(ClosedEnvironmentError, match="the environment is closed, make a new one"):
                call()


def test_an_agent_plays_in_both_kinds(make_vec) -> None:
    agent = load_agent(ROOT / "agents/procgen/srwm")
    env = gymnasium.make("srwm/Procgen-starpilot-easy-v0", num_levels=200)
    policy = AgentPolicy(agent, env)
    observation, _ = env.reset(seed=0)
    start = True
    for _ in range(50):
        observation, _, terminated, truncated, _ = env.step(policy(observation, start))
        if start := terminated or truncated:
            observation, _ = env.reset()
    env.close()
    vector = make_vec("srwm/Procgen-v0", 2, games="starpilot,fruitbot", num_levels=200)
    policy = AgentPolicy(agent, vector, deterministic=False, seed=0)
    observation, _ = vector.reset(seed=0)
    starts = np.ones(2, bool)
    for _ in range(50):
        observation, _, terminated, truncated, _ = vector.step(policy(observation, starts))
        starts = terminated | truncated
    vector.close()


def test_gymnasiums_own_vector_of_single_environments() -> None:
    modes = getattr(gymnasium.vector, "AutoresetMode", None)
    options: Any = {} if modes is None else {"autoreset_mode": modes.SAME_STEP}
    single = [lambda: gymnasium.make("srwm/Procgen-starpilot-easy-v0", num_levels=5)] * 2
    env: Any = gymnasium.vector.SyncVectorEnv(single, **options)
    env = vector_wrapper("RecordEpisodeStatistics", "RecordEpisodeStatistics")(env)
    env.reset(seed=[1, 2])
    ended = 0
    for _ in range(150):
        *_, terminated, _, infos = env.step(np.full(2, 4))
        ended += terminated.sum()
        assert ("final_info" in infos) == terminated.any()
    assert ended > 0
    env.close()


def test_stable_baselines3_converts_single_environments() -> None:
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    env: Any = make_vec_env("srwm/Procgen-starpilot-easy-v0", n_envs=2, seed=0, env_kwargs={"num_levels": 5})
    observation = env.reset()
    episodes = []
    for _ in range(150):
        observation, _, dones, infos = env.step(np.full(2, 4))
        episodes += [info["episode"] for done, info in zip(dones, infos, strict=True) if done]
    assert observation["obs"].shape == (2, 3, 64, 64)
    assert all(episode["l"] > 1 for episode in episodes)
    assert episodes
    env.close()
