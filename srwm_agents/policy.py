"""A saved agent as a plain callable, for loops that know nothing of recurrent state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srwm_agents.agent import Agent, AgentConfig, AgentError
from srwm_agents.encoders import IMAGE_KEY


class AgentPolicy:
    """``actions = policy(observation, episode_start)``: the agent, keeping its memory between calls.

    It plays in everything that gives the observations it was trained on: gymnasium's single and vector environments,
    Stable-Baselines3's, Sample Factory's. Where the framework carries the state itself, use :meth:`Agent.act` (a flat
    tensor) or :meth:`Agent.predict` (Stable-Baselines3's protocol) instead.
    """

    def __init__(self, agent: Agent, env: Any = None, *, deterministic: bool = True, seed: int | None = None) -> None:
        """Make a policy.

        Args:
            agent: from :func:`srwm_agents.load_agent`.
            env: where it is going to play, to be checked by :func:`check_fits`; None checks nothing.
            deterministic: take the likeliest actions; else sample from the agent's policy.
            seed: of sampled actions; None draws one.

        Raises:
            AgentError: the agent does not fit the environment.
        """
        if env is not None:
            check_fits(agent, env)
        self.agent = agent
        self.deterministic = deterministic
        self._generator = torch.Generator(agent.device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._state: Tensor | None = None

    def __call__(
        self,
        observation: Mapping[str, npt.NDArray[Any] | Tensor] | npt.NDArray[Any] | Tensor,
        episode_start: Any = None,
    ) -> npt.NDArray[Any]:
        """Choose one action an environment.

        Args:
            observation: as of :meth:`Agent.act`.
            episode_start: bool [B] (or one bool for a single environment), True where a new episode begins with this
                observation: the ``terminated | truncated`` of the step before. Without it, call :meth:`reset`.

        Raises:
            ValueError: as :meth:`Agent.act`; also another number of environments than before.
        """
        actions, self._state = self.agent.act(
            observation,
            self._state,
            resets=None if episode_start is None else np.asarray(episode_start, dtype=bool).reshape(-1),
            deterministic=self.deterministic,
            generator=self._generator,
        )
        return actions

    def reset(self) -> None:
        """Forget everything: fresh episodes everywhere."""
        self._state = None


def _flat(config: AgentConfig, space: Any, name: str) -> str:
    """That a wrapper gives the observation ``name`` of an environment with ``space``, as the end of an error; or ""."""
    from srwm_agents.envs.added_entries import ADDED  # which needs gymnasium
    from srwm_agents.spaces.gymnasium_spaces import leaves_of

    if name not in ADDED:
        try:
            if name not in [leaf.name for leaf in leaves_of(space)]:
                return ""
        except ValueError:  # a space that no agent can have
            return ""
    wanted = "".join(f", {added}=True" for added in ADDED if added in config.extras)
    return f"; srwm_agents.envs.flat.FlatObservations(env{wanted}) gives it"


def check_fits(agent: Agent, env: Any) -> None:
    """Check that an agent can play in an environment.

    Args:
        agent: any agent.
        env: with gymnasium's spaces (``single_observation_space`` if it is a vector of gymnasium's), and ``games`` if
            it is Procgen.

    Raises:
        AgentError: an observation that the agent needs is missing or has another shape; another number of actions; a
            game that the agent was not trained on. The message names both sides.
    """
    from gymnasium import spaces  # which a program without environments need not have

    from srwm_agents.spaces.gymnasium_spaces import actions_of, values_of

    config = agent.config
    base = getattr(env, "unwrapped", env)  # gymnasium's wrappers warn of being asked for what they do not have
    vector = hasattr(base, "single_observation_space")
    space = env.single_observation_space if vector else env.observation_space
    given = dict(space.spaces) if isinstance(space, spaces.Dict) else {}
    if not given and list(config.entries) == [IMAGE_KEY] and config.image_shape == ():
        given = {IMAGE_KEY: space}  # which such an agent takes without a dict
    for name, entry in config.entries.items():
        if name not in given:
            have = ", ".join(given) if given else f"a {type(space).__name__}"
            flat = "" if vector or "env" not in config.environment else _flat(config, space, name)
            raise AgentError(f"the agent needs the observation {name!r}, the environment gives: {have}{flat}")
        found = (1,) if isinstance(given[name], spaces.Discrete) else tuple(given[name].shape or ())
        if found != entry.shape:
            raise AgentError(
                f"observation {name!r} has shape {list(found)}, the agent was trained on {list(entry.shape)}"
            )
        if entry.sizes and values_of(given[name]) != entry.sizes:
            raise AgentError(
                f"observation {name!r} has {values_of(given[name])} values, the agent was trained on {entry.sizes}"
            )
    actions = env.single_action_space if vector else env.action_space
    try:
        fits = actions_of(actions) == config.action_spec
    except ValueError:
        fits = False
    if not fits:
        kind = config.action_spec.kind
        ours = f"{config.num_actions} discrete ones" if kind == "discrete" else f"others: {config.actions}"
        raise AgentError(f"the environment's actions are {actions}, the agent has {ours}")
    trained = config.environment.get("games", ())
    for game in _games(env):
        if trained and game not in trained:
            raise AgentError(f"the agent was not trained on {game!r}, but on: {', '.join(trained)}")


def _games(env: Any) -> Sequence[str]:
    """The games of an environment that has any; Stable-Baselines3's vectors must be asked for each of theirs."""
    base = getattr(env, "unwrapped", env)
    if hasattr(base, "env_is_wrapped"):
        try:
            return [game for games in env.get_attr("games") for game in games]
        except AttributeError:
            return []
    return getattr(base, "games", [])
