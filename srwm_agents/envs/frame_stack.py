"""Frame stacking: the last observations of an episode side by side, a short memory that nothing has to learn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

Stack = Callable[[Sequence[Any]], Any]
"""Observations of a space, oldest first -> one of the stacked space."""


class FrameStack(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The last ``frames`` observations as one, oldest first; an episode begins with copies of its first.

    Vectors are joined end to end, images along their channels, each entry of a Dict or Tuple by itself. A Discrete
    observation becomes a MultiDiscrete of numbers from 0::

        env = FrameStack(gymnasium.make("CartPole-v1"), frames=4)  # observations of 16 numbers
    """

    def __init__(self, env: gymnasium.Env[Any, Any], frames: int) -> None:
        """Wrap ``env``.

        Args:
            env: an environment whose observations are Box, Discrete, MultiDiscrete or MultiBinary, or Dict and Tuple of
                those.
            frames: observations side by side, at least 1.

        Raises:
            ValueError: ``frames`` is out of range, or the observation space is another.
        """
        super().__init__(env)
        if frames < 1:
            raise ValueError(f"frames is {frames}, expected at least 1")
        self.observation_space, self._stack = stacked(env.observation_space, frames)
        self._frames: deque[Any] = deque(maxlen=frames)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        # Copies, here and below: an environment may write its next observation where this one is.
        self._frames.extend([_copied(observation)] * (self._frames.maxlen or 1))
        return self._stack(self._frames), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(_copied(observation))
        return self._stack(self._frames), reward, terminated, truncated, info


def make_frame_stack(
    env_id: str, frames: int = 4, env_kwargs: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> FrameStack:
    """Make a registered environment with stacked observations; the entry point of ``srwm/FrameStack-v0``.

    Args:
        env_id: its id, or ``module:ID`` to import the module that registers it first.
        frames: observations side by side.
        env_kwargs: keyword arguments of the environment.
        render_mode: of the environment.

    Raises:
        ValueError: as :class:`FrameStack`; what ``gymnasium.make`` raises.
    """
    options = dict(env_kwargs or {}) if render_mode is None else {**(env_kwargs or {}), "render_mode": render_mode}
    return FrameStack(gymnasium.make(env_id, **options), frames)


def stacked(space: spaces.Space[Any], frames: int) -> tuple[spaces.Space[Any], Stack]:
    """The space of ``frames`` observations of ``space`` as one, and what makes one of them.

    Raises:
        ValueError: a space that is not stacked, named with those that are.
    """
    if isinstance(space, spaces.Dict):
        parts = {name: stacked(entry, frames) for name, entry in space.spaces.items()}
        whole = spaces.Dict({name: entry for name, (entry, _) in parts.items()})
        return whole, lambda seen: {name: stack([one[name] for one in seen]) for name, (_, stack) in parts.items()}
    if isinstance(space, spaces.Tuple):
        entries = [stacked(entry, frames) for entry in space.spaces]
        whole = spaces.Tuple([entry for entry, _ in entries])
        return whole, lambda seen: tuple(stack([one[i] for one in seen]) for i, (_, stack) in enumerate(entries))
    if isinstance(space, spaces.Box):
        join = _joined(space.shape)
        low, high = join([space.low] * frames), join([space.high] * frames)
        dtype: Any = space.dtype
        return spaces.Box(low, high, low.shape, dtype), lambda seen: join([np.asarray(one, dtype) for one in seen])
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return spaces.MultiDiscrete([int(space.n)] * frames), lambda seen: np.array([int(one) - start for one in seen])
    if isinstance(space, spaces.MultiDiscrete) and not np.any(getattr(space, "start", 0)):
        return spaces.MultiDiscrete(np.tile(space.nvec.ravel(), frames)), _flat
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(frames * int(np.prod(space.shape))), _flat
    raise ValueError(
        f"the observation space has {' '.join(str(space).split())}, expected Box, Discrete, MultiBinary, MultiDiscrete "
        "that begins at 0, or Dict and Tuple of those"
    )


def _joined(shape: tuple[int, ...]) -> Callable[[Sequence[Any]], Any]:
    """How arrays of a shape are put side by side."""
    if len(shape) == 3:  # along the channels, which are fewer than rows or columns
        return lambda seen: np.concatenate(seen, axis=-1 if shape[2] < shape[0] else 0)
    if len(shape) == 2:  # a grey image: each becomes a channel
        return lambda seen: np.stack(seen, axis=-1)
    return lambda seen: np.concatenate([np.reshape(one, -1) for one in seen])


def _flat(seen: Sequence[Any]) -> Any:
    return np.concatenate([np.reshape(one, -1) for one in seen])


def _copied(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {name: _copied(entry) for name, entry in observation.items()}
    if isinstance(observation, tuple):
        return tuple(_copied(entry) for entry in observation)
    return np.array(observation)
