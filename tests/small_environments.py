"""Small environments of every kind of space, which tests name as ``small_environments:test/…``."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
OBSERVATIONS: dict[str, spaces.Space] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "discrete": spaces.Discrete(4, start=1),
    "tuple": spaces.Tuple([spaces.Discrete(2), spaces.MultiDiscrete([3, 4]), spaces.Box(0, 1, (2, 2), np.float32)]),
    "dict": spaces.Dict({"image": IMAGE, "goal": spaces.Box(-1, 1, (2,), np.float32)}),
    "image": IMAGE,
}
ACTIONS: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(3, start=5),
    "multi": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32)),
}


class Small(gymnasium.Env):
    """Random observations; the reward says what the action was; episodes end after 3 steps, or by time after 5."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (gymnasium's convention)

    def __init__(
        self,
        observations: str = "vector",
        actions: str = "discrete",
        fails_at: int = -1,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observations], ACTIONS[actions]
        self.render_mode = render_mode
        self.steps, self.episodes, self.fails_at = 0, 0, fails_at

    def _observation(self) -> Any:
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.episodes += 1
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(np.asarray(action, self.action_space.dtype)), action
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("out of order")
        if self.steps == -self.fails_at - 10:  # -11: at the first step
            os._exit(3)
        ends, late = self.steps == 3 and self.episodes % 2 == 1, self.steps == 5
        return self._observation(), float(np.sum(action)), ends, late, {}

    def render(self) -> Any:
        return np.full((20, 30, 3), self.steps, np.uint8)


class WithoutPictures(Small):
    metadata = {"render_modes": []}  # noqa: RUF012


class FourValues(Small):
    """Steps as in the days of gym."""

    def step(self, action: Any) -> Any:
        observation, reward, ends, late, info = super().step(action)
        return observation, reward, ends or late, info


class OtherShape(Small):
    """Observations are shorter than their space says."""

    def _observation(self) -> Any:
        return super()._observation()[:1]


class WrongNumbers(Small):
    """From the first step on, an observation or a reward that is none: ``what`` says which."""

    def __init__(self, what: str = "reward") -> None:
        super().__init__("discrete" if what == "category" else "vector")
        self.what = what

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, ends, late, info = super().step(action)
        if self.what == "category":
            return 99, reward, ends, late, info
        if self.what == "observation":
            observation = observation * np.float32(np.nan)
        return observation, np.inf if self.what == "reward" else reward, ends, late, info


kinds: dict[str, Any] = {
    "WrongNumbers": WrongNumbers,
    "Small": Small,
    "WithoutPictures": WithoutPictures,
    "FourValues": FourValues,
    "OtherShape": OtherShape,
}
for name, kind in kinds.items():
    if f"test/{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"test/{name}-v0", kind)
