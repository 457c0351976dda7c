"""A single Gymnasium environment with the observations that an agent of the trainer takes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from srwm_agents.envs.gymnasium_vector import LAST_ACTION, LAST_REWARD
from srwm_agents.spaces.gymnasium_spaces import actions_of, leaves_of


class FlatObservations(gymnasium.Wrapper[dict[str, Any], Any, Any, Any]):
    """Observations as a dict of named arrays: those of :class:`.gymnasium_vector.GymnasiumVectorEnv`, without N.

    For agents that observe more than one array; an agent that observes "obs" alone takes a plain environment's too::

        env = FlatObservations(gymnasium.make("my_module:Mine-v0"), last_action=True)
        policy = AgentPolicy(load_agent("train_dir/mine/agent"), env)
        observation, _ = env.reset()
        action = policy(observation, True)
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, last_action: bool = False, last_reward: bool = False) -> None:
        """Wrap ``env``.

        Args:
            env: any environment with spaces that an agent can have.
            last_action, last_reward: entries to add, as the agent was trained with.

        Raises:
            SpaceError: the environment has other spaces.
        """
        super().__init__(env)
        self._leaves, self._actions = leaves_of(env.observation_space), actions_of(env.action_space)
        self._last_action, self._last_reward = last_action, last_reward
        entries: dict[str, spaces.Space[Any]] = {leaf.name: leaf.space for leaf in self._leaves}
        if last_reward:
            entries[LAST_REWARD] = spaces.Box(-1, 1, (1,), np.float32)
        if last_action:
            entries[LAST_ACTION] = spaces.Box(-np.inf, np.inf, (self._actions.width,), np.float32)
        self.observation_space = spaces.Dict(entries)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._flat(observation, 0.0, None), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._flat(observation, float(reward), action), reward, terminated, truncated, info

    def _flat(self, observation: Any, reward: float, action: Any) -> dict[str, Any]:
        entries = {}
        for leaf in self._leaves:
            values = np.asarray(leaf.value(observation))[None]
            entries[leaf.name] = leaf.convert(values).astype(leaf.dtype, copy=False)[0]
        if self._last_reward:
            entries[LAST_REWARD] = np.clip([reward], -1, 1).astype(np.float32)
        if self._last_action:
            none = np.zeros(self._actions.width, np.float32)
            entries[LAST_ACTION] = none if action is None else self._actions.encoded(np.asarray(action)[None])[0]
        return entries
