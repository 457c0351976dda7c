"""One Procgen game as an ordinary gymnasium environment."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from srwm_agents.envs.compatibility import FINAL_OBSERVATION
from srwm_agents.envs.procgen import make_procgen

Observation = dict[str, Any]


class ProcgenEnv(gymnasium.Env[Observation, int]):
    """A single Procgen environment, as ``gymnasium.make("srwm/Procgen-bigfish-easy-v0")`` makes it.

    Observations are those of :class:`envs.ProcgenVectorEnv` without the batch dimension: ``obs`` uint8 [3, 64, 64],
    ``last_reward`` float32 [1] and, on request, ``last_action`` float32 [15]. Many environments are much faster as one
    vector: ``srwm_agents.envs.make_procgen``, or ``gymnasium.make_vec(…, vectorization_mode="custom")``.

    The simulator does not render an episode's last state: with ``terminated``, ``obs`` is the frame before the last
    action, and the other entries belong to the last step. ``info`` holds the simulator's ``level_seed``,
    ``prev_level_seed`` and ``prev_level_complete``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (gymnasium's own convention)

    def __init__(
        self,
        game: str,
        distribution_mode: str = "easy",
        num_levels: int = 0,
        start_level: int = 0,
        seed: int | None = None,
        *,
        render_mode: str | None = None,
        **options: Any,
    ) -> None:
        """Make a simulator of one environment; arguments and errors as in :func:`srwm_agents.envs.make_procgen`.

        ``device`` must be None: a single environment gives NumPy only.
        """
        if options.get("device") is not None:
            raise ValueError(f"device is {options['device']}, allowed: None (only vector environments give tensors)")
        options.setdefault("num_threads", 0)
        self._vector = make_procgen(
            game, 1, distribution_mode, num_levels, start_level, seed, render_mode=render_mode, **options
        )
        self.games = self._vector.games
        """The game's name, in a list as in vector environments."""
        self.render_mode = render_mode
        self.observation_space = cast(spaces.Space[Observation], self._vector.single_observation_space)
        self.action_space = cast(spaces.Space[int], self._vector.single_action_space)
        self._begun: Observation | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; with a seed, restart the simulator, so that runs are reproducible.

        Seeds are taken modulo 2**31, the simulator's range: gymnasium's vector environments draw larger ones.
        """
        super().reset(seed=seed)
        if seed is None and self._begun is not None:
            observation = self._begun
        else:
            observation = _first(self._vector.reset(seed=None if seed is None else seed % 2**31)[0])
        self._begun = None
        return observation, {}

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Take one step; ValueError for an action outside 0..14, ``ClosedEnvironmentError`` after ``close``."""
        observations, rewards, terminated, truncated, infos = self._vector.step([action])
        observation = _first(observations)
        self._begun = observation if terminated[0] else None
        if terminated[0]:
            observation = infos[FINAL_OBSERVATION][0]
        info = {name: infos[name][0] for name in ("level_seed", "prev_level_seed", "prev_level_complete")}
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> npt.NDArray[np.uint8]:  # type: ignore[override]  (gymnasium allows lists of frames as well)
        """The frame [512, 512, 3]; needs ``render_mode="rgb_array"``."""
        return self._vector.render()[0]

    def close(self) -> None:
        """Free the simulator."""
        self._begun = None
        self._vector.close()


def _first(observations: Observation) -> Observation:
    return {name: entry[0] for name, entry in observations.items()}
