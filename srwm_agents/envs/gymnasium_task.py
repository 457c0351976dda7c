"""A Gymnasium environment by its id: found, checked and made, with errors of one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from srwm_agents.envs.compatibility import make_own_vector, steps_at_once_at_ends
from srwm_agents.envs.simulator import SimulatorError
from srwm_agents.extras import require
from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.gymnasium_spaces import Leaf, actions_of, leaves_of

_EXTRAS = {"popgym": "popgym"}
"""Modules with environments that an extra of this package installs."""


class TaskError(ValueError):
    """An environment that does not exist, cannot be made, or has spaces that an agent cannot have."""


@dataclass(frozen=True)
class GymnasiumTask:
    """An environment of Gymnasium's registry and the arguments that it is made with."""

    id: str
    """Registered id, or "module:ID" to import the module that registers it first."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of ``gymnasium.make``."""

    def spec(self) -> EnvSpec:
        """The registry's entry; modules are looked for in the current directory too.

        Raises:
            TaskError: there is none of this id, or its module cannot be imported.
        """
        here = os.getcwd()  # noqa: PTH109  (a string, as sys.path has them)
        if ":" in self.id and here not in sys.path:
            sys.path.append(here)
        try:
            return gymnasium.spec(self.id) if ":" not in self.id else _imported(self.id)
        except Exception as error:  # a user's module may raise anything
            raise TaskError(f"no environment {self.id!r}: {_line(error)}") from error

    def make(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """Make one environment.

        Raises:
            TaskError: it does not exist, or cannot be made with these arguments.
        """
        spec = self.spec()
        options = dict(self.kwargs) if render_mode is None else {**self.kwargs, "render_mode": render_mode}
        try:
            return gymnasium.make(spec, disable_env_checker=True, **options)
        except Exception as error:
            raise self._unmade(error) from error

    def has_vector(self) -> bool:
        """Whether the environment has a vector form of its own that begins episodes in the step that ends others."""
        spec = self.spec()
        return spec.vector_entry_point is not None and steps_at_once_at_ends(spec.vector_entry_point)

    def make_vector(self, num_envs: int) -> Any:
        """Make the environment's own vector of ``num_envs``; TaskError where it cannot be made."""
        try:
            return make_own_vector(self.spec(), num_envs, dict(self.kwargs))
        except Exception as error:
            raise self._unmade(error) from error

    def described(self) -> tuple[list[Leaf], ActionSpec, gymnasium.Space[Any], dict[str, Any]]:
        """Entries of observations, actions, action space and metadata, of an environment that is made for a moment.

        Raises:
            TaskError: it cannot be made, or has spaces that an agent cannot have.
        """
        if self.spec().entry_point is None and self.has_vector():
            environment = self.make_vector(1)
            observations, actions = environment.single_observation_space, environment.single_action_space
        else:
            environment = self.make()
            observations, actions = environment.observation_space, environment.action_space
        environment.close()
        try:
            return leaves_of(observations), actions_of(actions), actions, dict(environment.metadata)
        except ValueError as error:
            raise TaskError(f"{self.id}: {error}") from error

    def _unmade(self, error: Exception) -> TaskError:
        arguments = f" with {json.dumps(dict(self.kwargs))}" if self.kwargs else ""
        return TaskError(f"{self.id} cannot be made{arguments}: {_line(error)}")


class EnvironmentFailedError(SimulatorError):
    """An environment raised an exception, or the process that stepped it ended; the message names both."""


def _imported(id: str) -> EnvSpec:
    module, _, name = id.partition(":")
    if module in _EXTRAS:
        require(_EXTRAS[module], module)
    __import__(module)
    return gymnasium.spec(name)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "it does not say why"
    return f"{type(error).__name__}: {text}"
