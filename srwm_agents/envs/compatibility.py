"""Vector environments in gymnasium 0.29 and in gymnasium 1.1 and later; no other module knows of the differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector.utils import batch_space

Array = npt.NDArray[Any]

_MODES: Any = getattr(gymnasium.vector, "AutoresetMode", None)  # None in gymnasium 0.29
if _MODES is None and not hasattr(gymnasium.vector.VectorEnv, "step_async"):
    raise ImportError(
        f"gymnasium is {gymnasium.__version__}, allowed: 0.29, and 1.1 or later (1.0 has no same-step autoreset)"
    )
AUTORESET: dict[str, Any] = {} if _MODES is None else {"autoreset_mode": _MODES.SAME_STEP}
"""Entry of a vector environment's metadata that declares same-step autoreset; gymnasium 0.29 has no other kind."""
FINAL_OBSERVATION = "final_observation" if _MODES is None else "final_obs"
"""Key in a step's infos of the last observations of episodes that this step ended."""


class VectorEnv(gymnasium.vector.VectorEnv):
    """Base class for vector environments that have ``step_async`` and ``step_wait``, as gymnasium 0.29 asks for."""

    def __init__(self, num_envs: int, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        """Spaces are those of a single environment."""
        if _MODES is None:
            super().__init__(num_envs, observation_space, action_space)
            return
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)

    def step_async(self, actions: Any) -> None:
        """Begin a step."""
        raise NotImplementedError

    def step_wait(self, **kwargs: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Wait for the step that ``step_async`` began."""
        raise NotImplementedError

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step: ``step_async``, then ``step_wait``."""
        self.step_async(actions)
        return self.step_wait()

    def __del__(self) -> None:
        """Free what ``close`` frees, unless that has been called."""
        if not getattr(self, "closed", True):
            self.close()


def with_masks(infos: Mapping[str, Array], present: Array) -> dict[str, Array]:
    """``infos``, each an array [N], and beside each a mask ``_key`` [N] that is True where there is a value."""
    return {**infos, **{f"_{name}": present for name in infos}}


def final_entries(infos: Mapping[str, Array], ended: Array, observations: Mapping[str, Array] | None) -> dict[str, Any]:
    """Entries of a step's infos that describe the episodes which it ended, in the layout of the installed gymnasium.

    Args:
        infos: of the step, arrays [N].
        ended: [N], True where an episode ended.
        observations: last observations of the episodes, arrays [N, …]; None leaves them out.

    Returns:
        ``final_info``: in gymnasium 1.x a dict of arrays and masks as the infos themselves are, in 0.29 an array [N] of
        dicts, None where no episode ended. ``final_obs`` (in 0.29 ``final_observation``): an array [N] of one
        environment's observations, None where no episode ended. Beside each the mask ``_key``, which is ``ended``.
    """
    final: dict[str, Any] = {"final_info": with_masks(infos, ended) if _MODES else _rows(infos, ended)}
    if observations is not None:
        final[FINAL_OBSERVATION] = _rows(observations, ended)
    return with_masks(final, ended)


def _rows(columns: Mapping[str, Array], wanted: Array) -> Array:
    """Array [N] of dicts, of one row each; None where it is not ``wanted``."""
    rows = np.full(len(wanted), None, dtype=object)
    for i in np.flatnonzero(wanted):
        rows[i] = {name: column[i] for name, column in columns.items()}
    return rows


def steps_at_once_at_ends(entry_point: Any) -> bool:
    """Whether the vector environments of a vector entry point reset in the step that ends an episode.

    gymnasium 0.29 has no others; in 1.x their metadata says so, where they are a class.
    """
    if _MODES is None:
        return True
    maker = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    return getattr(maker, "metadata", {}).get("autoreset_mode") == _MODES.SAME_STEP


def make_own_vector(spec: EnvSpec, num_envs: int, kwargs: dict[str, Any]) -> gymnasium.vector.VectorEnv:
    """Make the vector environment of a specification that has a vector entry point, with ``kwargs`` over its own."""
    entry_point = spec.vector_entry_point
    maker: Any = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    # gymnasium's own way passes the limit of steps and, in 0.29, not the specification's keyword arguments.
    limit = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
    return maker(num_envs=num_envs, **limit, **{**spec.kwargs, **kwargs})
