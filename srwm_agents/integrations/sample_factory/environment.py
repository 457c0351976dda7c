"""Vector environments in Sample Factory's interface for one environment with many agents."""

from __future__ import annotations

import warnings
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from srwm_agents.integrations.sample_factory.request import PROCGEN
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.gymnasium_spaces import actions_of

ENV_NAME = PROCGEN
GAME_KEYS = ("game_index", "game_return", "game_length")
"""Per-episode statistics that travel with each finished episode, aligned with one another."""


GAME_ENTRY = "game_index"
"""Observation entry that says which game (or task) it is."""
EXPLORING_ENTRY = "exploring"
"""Observation entry, with ``random_starts``, that says where a random action takes the place of the policy's."""
BOOKKEEPING = (GAME_ENTRY, EXPLORING_ENTRY)
"""Observation entries for the learner, never for the network."""


class SampleFactoryEnvironment(gymnasium.Env):
    """One vector of environments with the interface that Sample Factory expects of a multi-agent environment.

    With batched sampling everything stays an array or a tensor over all agents; without it, lists over agents, as
    Sample Factory's other sampler wants them. Sample Factory's actions are a policy's choices: see
    :class:`srwm_agents.spaces.actions.ActionSpec`.
    """

    is_multiagent = True

    def __init__(self, vector: Any, batched: bool) -> None:
        """``vector``: a :class:`srwm_agents.envs.ProcgenVectorEnv`, or another with its interface."""
        self.vector = vector
        self.batched = batched
        self.num_agents = vector.num_envs
        self.observation_space = spaces.Dict(
            {
                **cast(spaces.Dict, vector.single_observation_space).spaces,
                GAME_ENTRY: spaces.Box(0, len(vector.games) - 1, (1,), np.float32),
            }
        )
        self.game_entry: Any = vector.game_index.astype(np.float32)[:, None]
        """[N, 1], which game each environment plays, beside the observations."""
        if vector.device is not None:
            self.game_entry = torch.from_numpy(self.game_entry).to(vector.device)
        self.actions = actions_of(vector.single_action_space)
        self.action_space = choice_space(self.actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Sample Factory's seed is the environment's number alone; the run's seed is already in the vector."""
        observation, infos = self.vector.reset()
        observation[GAME_ENTRY] = self.game_entry
        return (observation, infos) if self.batched else (self._per_agent(observation), [{}] * self.num_agents)

    def send(self, chosen: npt.NDArray[Any]) -> None:
        """Begin a step with a policy's choices [N, K] (or [N] where K is 1)."""
        self.vector.step_async(self.actions.native(chosen))

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, Any]:  # type: ignore[override]
        self.send(np.asarray(action))
        observation, rewards, terminated, truncated, infos = self.vector.step_wait()
        observation[GAME_ENTRY] = self.game_entry
        returns, lengths, ended = (infos[f"episode_{name}"] for name in ("return", "length", "ended"))
        if self.batched:
            values = (self.vector.game_index, returns, lengths)
            infos = {key: torch.from_numpy(np.asarray(value)) for key, value in zip(GAME_KEYS, values, strict=True)}
            return observation, rewards, terminated, truncated, infos
        per_agent: list[dict[str, Any]] = [{} for _ in range(self.num_agents)]
        for i in np.flatnonzero(ended):
            values = (self.vector.game_index[i], returns[i], lengths[i])
            per_agent[i]["episode_extra_stats"] = dict(zip(GAME_KEYS, map(float, values), strict=True))
        return self._per_agent(observation), rewards, terminated, truncated, per_agent

    def _per_agent(self, observation: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: entry[i] for name, entry in observation.items()} for i in range(self.num_agents)]

    def close(self) -> None:
        self.vector.close()


def choice_space(actions: ActionSpec) -> spaces.Space[Any]:
    """A policy's choices as a space that Sample Factory can size its buffers by."""
    if actions.continuous:
        return spaces.Box(-np.inf, np.inf, (actions.count,), np.float32)
    if actions.count == 1:
        return spaces.Discrete(actions.sizes[0])
    return spaces.Tuple([spaces.Discrete(size) for size in actions.sizes])


def choices_of(space: spaces.Space[Any]) -> ActionSpec:
    """The inverse of :func:`choice_space`, without what the environment alone knows: its ranges and shapes."""
    if isinstance(space, spaces.Tuple):
        sizes = tuple(int(cast(spaces.Discrete, part).n) for part in space.spaces)
        return ActionSpec("multi_discrete", sizes, shape=(len(sizes),))
    return actions_of(space)


def make_environment(
    full_env_name: str, cfg: Any = None, env_config: Any = None, render_mode: str | None = None
) -> SampleFactoryEnvironment:
    """Sample Factory's environment factory; top-level, because spawned workers look it up by its name."""
    # Sample Factory asks its own wrappers for attributes in a way that gymnasium warns of at each start.
    warnings.filterwarnings("ignore", ".*to get variables from other wrappers", UserWarning)
    number = 0 if env_config is None else env_config.env_id
    on_gpu = env_config is not None and cfg.device == "gpu" and cfg.actor_worker_gpus and cfg.env_gpu_observations
    on_gpu = on_gpu and cfg.batched_sampling
    vector = suite_of(cfg).vector(
        cfg,
        number,
        torch.device("cuda", cfg.actor_worker_gpus[0]) if on_gpu else None,
        reuse_tensors=bool(on_gpu and cfg.in_process),
        render_mode=render_mode,
    )
    return SampleFactoryEnvironment(vector, cfg.batched_sampling)
