"""An agent as a plain callable, in everything that gives its observations; and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from srwm_agents import Agent, AgentConfig, AgentError, AgentPolicy, check_fits
from srwm_agents.envs import ProcgenEnv, make_procgen

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}


def make_agent(core: str = "srwm", **changes) -> Agent:
    torch.manual_seed(0)
    config = {"core": core, "core_settings": SETTINGS, "num_actions": 15, "encoder": "convnet_impala", **changes}
    return Agent(AgentConfig(**config)).eval()


def observe(batch: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.integers(0, 256, (batch, 3, 64, 64), dtype=np.uint8),
        "last_reward": rng.uniform(-1, 1, (batch, 1)).astype(np.float32),
    }


@pytest.mark.parametrize("core", ["srwm", "feedforward"])
def test_the_callable_remembers_what_act_is_told(core: str) -> None:
    agent = make_agent(core)
    policy = AgentPolicy(agent)
    state = None
    starts = np.array([False, True])
    for step in range(4):
        expected, state = agent.act(observe(2, step), state, resets=starts)
        np.testing.assert_array_equal(policy(observe(2, step), starts), expected)
    policy.reset()
    np.testing.assert_array_equal(policy(observe(3)), agent.act(observe(3))[0])


def test_sampled_actions_are_seeded() -> None:
    agent = make_agent()
    runs = [[AgentPolicy(agent, deterministic=False, seed=s)(observe(50, 1)) for s in (1, 1, 2)]]
    np.testing.assert_array_equal(runs[0][0], runs[0][1])
    assert (runs[0][0] != runs[0][2]).any()


def test_it_plays_a_single_environment_and_a_vector() -> None:
    agent = make_agent(environment={"games": ["maze", "starpilot"]})
    single = ProcgenEnv("starpilot", num_levels=5, seed=1)
    policy = AgentPolicy(agent, single)
    observation, _ = single.reset()
    start = True
    for _ in range(5):
        action = policy(observation, start)
        observation, _, terminated, truncated, _ = single.step(int(action))
        start = terminated or truncated
    single.close()
    vector = make_procgen("maze,starpilot", 4, num_threads=0)
    policy = AgentPolicy(agent, vector)
    observation, _ = vector.reset()
    starts = np.ones(4, dtype=bool)
    for _ in range(5):
        observation, _, terminated, truncated, _ = vector.step(policy(observation, starts))
        starts = terminated | truncated
    vector.close()


def test_stable_baselines_evaluates_it() -> None:
    agent = make_agent(environment={"games": ["starpilot"]})
    env = VecMonitor(DummyVecEnv([lambda: ProcgenEnv("starpilot", num_levels=2, seed=1)] * 2))
    check_fits(agent, env)
    rewards, lengths = evaluate_policy(
        cast(Any, agent), env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert isinstance(rewards, list)
    assert isinstance(lengths, list)
    assert len(rewards) == 2
    assert min(lengths) > 1
    env.close()


def test_predict_is_act() -> None:
    agent = make_agent()
    state, memory = None, None
    starts = np.array([True, False])
    for step in range(3):
        actions, state = agent.predict(observe(2, step), state, starts, deterministic=True)
        expected, memory = agent.act(observe(2, step), memory, resets=starts)
        np.testing.assert_array_equal(actions, expected)
        np.testing.assert_array_equal(state[0], memory.numpy())


class Other(gymnasium.Env):
    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions


IMAGE = spaces.Box(0, 255, (3, 64, 64), np.uint8)
REWARD = spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (IMAGE, 15, "the agent needs the observation 'obs', the environment gives: a Box"),
        ({"obs": IMAGE}, 15, "the agent needs the observation 'last_reward', the environment gives: obs"),
        (
            {"obs": spaces.Box(0, 255, (64, 64, 3), np.uint8), "last_reward": REWARD},
            15,
            r"observation 'obs' has shape \[64, 64, 3\], the agent was trained on \[3, 64, 64\]",
        ),
        ({"obs": IMAGE, "last_reward": REWARD}, 4, r"actions are Discrete\(4\), the agent has 15 discrete ones"),
    ],
)
def test_another_environment_is_refused(observations, actions: int, message: str) -> None:
    space = observations if isinstance(observations, spaces.Space) else spaces.Dict(observations)
    with pytest.raises(AgentError, match=message):
        AgentPolicy(make_agent(), Other(space, spaces.Discrete(actions)))


def test_other_games_are_refused() -> None:
    agent = make_agent(environment={"games": ["maze", "heist"]})
    env = make_procgen("maze,starpilot", 2, num_threads=0)
    with pytest.raises(AgentError, match="the agent was not trained on 'starpilot', but on: maze, heist"):
        AgentPolicy(agent, env)
    env.close()
    env = DummyVecEnv([lambda: ProcgenEnv("bigfish")])
    with pytest.raises(AgentError, match="the agent was not trained on 'bigfish'"):
        check_fits(agent, env)
    env.close()


def test_who_misses_added_entries_is_told_how_to_get_them() -> None:
    """Agents for Procgen, whose environments give them, are not."""
    env = SimpleNamespace(observation_space=spaces.Dict({"obs": IMAGE}), action_space=spaces.Discrete(15))
    agent = make_agent(environment={"env": "Mine-v0", "env_kwargs": {}})
    with pytest.raises(AgentError, match=r"gives: obs; .*FlatObservations\(env, last_reward=True\) gives it$"):
        check_fits(agent, env)
    other = make_agent(environment={"env": "Mine-v0", "env_kwargs": {}}, extras={"obs/goal": 2})
    with pytest.raises(AgentError, match=r"'obs/goal', the environment gives: obs$"):  # nor would the wrapper give it
        check_fits(other, env)


def test_states_that_do_not_fit_are_named() -> None:
    agent = make_agent()
    _, state = agent.predict(observe(2))
    with pytest.raises(ValueError, match=r"state has shape \[2, 448\], expected \[3, 448\]"):
        agent.predict(observe(3), state)
    with pytest.raises(ValueError, match="state is a ndarray, expected the tuple that predict returned"):
        agent.predict(observe(2), state[0])  # pyright: ignore[reportArgumentType]  (what is tested)
    policy = AgentPolicy(agent)
    policy(observe(2))
    with pytest.raises(ValueError, match=r"state has shape \[2, 448\], expected \[3, 448\]"):
        policy(observe(3))


def test_mixed_devices_are_named() -> None:
    """The meta device stands for a GPU: the check asks where a tensor is, not what."""
    agent = make_agent()
    with pytest.raises(ValueError, match="state is on meta, but x is on cpu: they must be on one device"):
        agent.act(observe(2), agent.initial_state(2).to("meta"))
    x = torch.zeros(2, 1, agent.core.input_size)
    with pytest.raises(ValueError, match="resets is on meta, but x is on cpu"):
        agent.core(x, agent.initial_state(2), torch.zeros(2, 1, dtype=torch.bool, device="meta"))
    with pytest.raises(ValueError, match="the core is on cpu, but x is on meta"):
        agent.core(x.to("meta"), agent.initial_state(2).to("meta"))
