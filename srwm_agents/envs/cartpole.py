"""CartPole without velocities: a small environment that needs a memory."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv

Array = npt.NDArray[Any]

_SEEN = [0, 2]
"""Of position, velocity, angle and angular velocity."""
_SPACE = spaces.Box(-5, 5, (2,), np.float32)


class CartPolePositions(gymnasium.ObservationWrapper[Array, Any, Array]):
    """CartPole that shows the cart's position and the pole's angle alone, ``srwm/CartPole-positions-v0``."""

    metadata = CartPoleEnv.metadata  # type: ignore[assignment]  (a wrapper's is a property, which a registry cannot read)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(CartPoleEnv(render_mode=render_mode))
        self.observation_space = _SPACE

    def observation(self, observation: Array) -> Array:
        return observation[_SEEN]


class CartPolePositionsVector(CartPoleVectorEnv):
    """Many of them, computed together with gymnasium's own vector of CartPole."""

    metadata = CartPoleVectorEnv.metadata

    def __init__(self, num_envs: int, max_episode_steps: int = 500) -> None:
        super().__init__(num_envs, max_episode_steps)
        self.single_observation_space = _SPACE

    def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:  # type: ignore[override]
        observations, infos = super().reset(**options)
        return observations[:, _SEEN], infos

    def step(self, action: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:  # type: ignore[override]
        observations, *rest = super().step(action)
        return (observations[:, _SEEN], *rest)  # type: ignore[return-value]
