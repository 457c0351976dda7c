"""Where agents play in an evaluation: levels of Procgen's games, or a Gymnasium environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from srwm_agents.early_imports import FOR_TRAINED_NETWORKS, imported_meanwhile
from srwm_agents.envs import make_procgen, normalised_score
from srwm_agents.envs.gymnasium_task import GymnasiumTask, TaskError
from srwm_agents.envs.gymnasium_vector import make_gymnasium
from srwm_agents.evaluation.splits import Split

NOOP = 4
"""Procgen's action without effect."""

EPISODES = Split("episodes", 0, 0)
"""The only split of an environment that has no levels."""


class Arena(Protocol):
    """Tasks, and the vector environments in which they are played; other processes get a copy of it."""

    @property
    def tasks(self) -> Sequence[str]:
        """Names of the tasks, in the order of their indices."""
        ...

    @property
    def about(self) -> str:
        """The tasks in a few words, for titles."""
        ...

    @property
    def record(self) -> dict[str, Any]:
        """What a report says of where it was played."""
        ...

    def make(
        self,
        each: int,
        split: Split,
        seed: int,
        *,
        num_threads: int | None = None,
        device: torch.device | None = None,
        render_mode: str | None = None,
    ) -> Any:
        """A vector of ``each`` environments a task on a split's levels, as ``make_procgen`` returns one."""
        ...

    def idle(self, number: int) -> npt.NDArray[Any]:
        """Actions for ``number`` environments that have played all of their episodes."""
        ...

    def level(self, infos: Mapping[str, Any], index: int) -> tuple[int | None, bool | None]:
        """The level of an environment's episode that has ended, and whether it was completed; None where unknown."""
        ...

    def normalised(self, task: str, score: float) -> float:
        """A return on the scale from 0 to 1; NaN where there is none."""
        ...


@dataclass(frozen=True)
class ProcgenArena:
    """Games of Procgen."""

    games: Sequence[str]
    mode: str
    """Procgen's variant of the games."""
    last_action: bool = False
    """Whether the policy needs its last action in the observation."""

    @property
    def tasks(self) -> Sequence[str]:
        return self.games

    @property
    def about(self) -> str:
        return self.mode

    @property
    def record(self) -> dict[str, Any]:
        return {"distribution_mode": self.mode}

    def make(
        self,
        each: int,
        split: Split,
        seed: int,
        *,
        num_threads: int | None = None,
        device: torch.device | None = None,
        render_mode: str | None = None,
    ) -> Any:
        # With a device, the agent is in this process too. The first simulator takes two seconds to read its images.
        with imported_meanwhile(*(FOR_TRAINED_NETWORKS if device is not None else ())):
            return make_procgen(
                self.games,
                each * len(self.games),
                self.mode,
                split.num_levels,
                split.start_level,
                seed,
                num_threads=num_threads,
                device=device,
                last_action=self.last_action,
                render_mode=render_mode,
            )

    def idle(self, number: int) -> npt.NDArray[Any]:
        return np.full(number, NOOP)

    def level(self, infos: Mapping[str, Any], index: int) -> tuple[int | None, bool | None]:
        return int(infos["prev_level_seed"][index]), bool(infos["prev_level_complete"][index])

    def normalised(self, task: str, score: float) -> float:
        return normalised_score(task, self.mode, score)


@dataclass(frozen=True)
class GymnasiumArena:
    """A Gymnasium environment."""

    env: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    last_action: bool = False
    last_reward: bool = False
    episode_step: bool = False
    """Whether the policy needs these in the observation."""
    processes: int = 0
    """That step the environments; the numbers do not depend on it."""

    @property
    def task(self) -> GymnasiumTask:
        """The environment."""
        return GymnasiumTask(self.env, self.env_kwargs)

    @property
    def tasks(self) -> Sequence[str]:
        return [self.env]

    @property
    def about(self) -> str:
        return " ".join([self.env, *([json.dumps(dict(self.env_kwargs))] if self.env_kwargs else [])])

    @property
    def folder_name(self) -> str:
        """:attr:`about` as the name of a folder."""
        return re.sub(r"[^\w.-]+", "_", self.about).strip("_")

    @property
    def record(self) -> dict[str, Any]:
        return {"env": self.env, "env_kwargs": dict(self.env_kwargs)}

    def make(
        self,
        each: int,
        split: Split,
        seed: int,
        *,
        num_threads: int | None = None,
        device: torch.device | None = None,
        render_mode: str | None = None,
    ) -> Any:
        return make_gymnasium(
            self.env,
            each,
            seed,
            kwargs=self.env_kwargs,
            processes=0 if render_mode else self.processes,
            device=device,
            last_action=self.last_action,
            last_reward=self.last_reward,
            episode_step=self.episode_step,
            render_mode=render_mode,
        )

    def idle(self, number: int) -> npt.NDArray[Any]:
        actions = self.task.described()[1]
        return actions.native(np.zeros((number, actions.count), np.float32 if actions.continuous else np.int64))

    def level(self, infos: Mapping[str, Any], index: int) -> tuple[int | None, bool | None]:
        return None, None

    def normalised(self, task: str, score: float) -> float:
        return float("nan")

    def check_renders(self) -> None:
        """Raise ``TaskError`` or ``EnvironmentFailedError`` unless the environment can be rendered as pictures."""
        modes = self.task.described()[3].get("render_modes") or []
        if "rgb_array" not in modes:
            have = ", ".join(map(str, modes)) or "none"
            raise TaskError(f"--video: {self.env} has no render mode rgb_array, it has: {have}")
        vector = self.make(1, EPISODES, 0, render_mode="rgb_array")
        try:
            vector.reset()
            vector.render()
        finally:
            vector.close()
