"""A single Gymnasium environment with the observations that an agent of the trainer takes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from srwm_agents.envs.added_entries import AddedEntries
from srwm_agents.spaces.gymnasium_spaces import actions_of, leaves_of


class FlatObservations(gymnasium.Wrapper[dict[str, Any], Any, Any, Any]):
    """Observations as a dict of named arrays: those of :class:`.gymnasium_vector.GymnasiumVectorEnv`, without N.

    For agents that observe more than one array; an agent that observes "obs" alone takes a plain environment's too::

        env = FlatObservations(gymnasium.make("my_module:Mine-v0"), last_action=True)
        policy = AgentPolicy(load_agent("train_dir/mine/agent"), env)
        observation, _ = env.reset()
        action = policy(observation, True)
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        last_action: bool = False,
        last_reward: bool = False,
        episode_step: bool = False,
    ) -> None:
        """Wrap ``env``.

        Args:
            env: any environment with spaces that an agent can have.
            last_action, last_reward, episode_step: entries to add (:class:`.added_entries.AddedEntries`), as the agent
                was trained with.

        Raises:
            SpaceError: the environment has other spaces.
        """
        super().__init__(env)
        self._leaves, self._actions = leaves_of(env.observation_space), actions_of(env.action_space)
        self._added = AddedEntries(self._actions, last_action, last_reward, episode_step)
        self._steps = 0
        entries: dict[str, spaces.Space[Any]] = {leaf.name: leaf.space for leaf in self._leaves}
        self.observation_space = spaces.Dict({**entries, **self._added.spaces})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._flat(observation, 0.0, 0), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._steps += 1
        return self._flat(observation, float(reward), action), reward, terminated, truncated, info

    def _flat(self, observation: Any, reward: float, action: Any) -> dict[str, Any]:
        entries = {}
        for leaf in self._leaves:
            values = np.asarray(leaf.value(observation))[None]
            entries[leaf.name] = leaf.convert(values).astype(leaf.dtype, copy=False)[0]
        added = self._added.arrays(np.array([reward]), np.asarray(action)[None], np.array([self._steps]))
        return {**entries, **{name: array[0] for name, array in added.items()}}
