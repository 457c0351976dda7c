"""A policy in a vector environment, step by step: the same play for evaluations, videos and inspections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Policy(Protocol):
    """A policy that can be evaluated, as :class:`srwm_agents.Agent` and :class:`.rollouts.RandomPolicy`."""

    def act(
        self,
        observation: Mapping[str, Any],
        state: Tensor | None = None,
        *,
        resets: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[npt.NDArray[Any], Tensor]:
        """Choose actions [N, …] and return them with the next state; see :meth:`srwm_agents.Agent.act`."""
        ...


class Play:
    """Episodes of a policy in a vector environment that has just been made, one :meth:`step` after another."""

    def __init__(
        self,
        policy: Policy,
        env: Any,
        idle: npt.NDArray[Any] | None = None,
        *,
        seed: int,
        deterministic: bool,
        device: torch.device | str,
    ) -> None:
        """Begin episodes everywhere.

        Args:
            policy: who plays.
            env: as an arena makes one; its observations may be tensors on the policy's device.
            idle: actions [N, …] of environments that no longer play; None where all play on.
            seed: of sampled actions.
            deterministic: take the likeliest action; else sample.
            device: of the generator of sampled actions, the policy's.
        """
        self._policy, self._env, self._idle = policy, env, idle
        self._options = {"deterministic": deterministic, "generator": torch.Generator(device).manual_seed(seed)}
        self._state: Tensor | None = None
        self._active = np.arange(env.num_envs)
        self._rows: npt.NDArray[np.int_] | Tensor | None = None  # None: all
        self._resets = np.ones(env.num_envs, dtype=bool)
        self.observation, _ = env.reset()
        """What the next step acts on."""
        self.actions: npt.NDArray[Any] = np.zeros(0)
        """Of the last step, [N, …]."""

    def step(self) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Act once in all environments and step them; returns rewards [N] and infos."""
        self.begin()
        return self.finish()

    def begin(self, active: npt.NDArray[np.int_] | None = None) -> None:
        """Act once in all environments and begin their step, which goes on while the caller does other things.

        Args:
            active: indices of those that still play, some of the step before's; None: the same.
        """
        if active is not None and len(active) < len(self._active):
            self._keep(active)
        rows = self._rows
        chosen, self._state = self._policy.act(
            self.observation if rows is None else {name: entry[rows] for name, entry in self.observation.items()},
            self._state,
            resets=self._resets[self._active],
            **self._options,
        )
        if self._idle is None:
            self.actions = chosen
        else:
            self.actions = self._idle.copy()
            self.actions[self._active] = chosen
        self._env.step_async(self.actions)

    def finish(self) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Wait for the step that :meth:`begin` began; returns rewards [N] and infos of the environment."""
        self.observation, rewards, _, _, infos = self._env.step_wait()
        self._resets = infos["episode_ended"]
        return rewards, infos

    def _keep(self, active: npt.NDArray[np.int_]) -> None:
        """From now on only these of the environments play."""
        if self._state is not None:
            kept = np.isin(self._active, active)
            self._state = self._state[torch.as_tensor(kept, device=self._state.device)]
        self._active = active
        device = getattr(self._env, "device", None)
        self._rows = active if device is None else torch.as_tensor(active, device=device)
