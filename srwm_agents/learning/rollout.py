"""The experience that an update learns from: trajectories of equal length, as tensors on the learner's device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

Observations = dict[str, Tensor]


@dataclass(frozen=True)
class Rollout:
    """B trajectories of T steps, and the observation after the last."""

    observations: Observations
    """Entries [B, T + 1, …], as the model takes them."""
    state: Tensor
    """[B, S], the recurrent state before the first step, as the behaviour policy had it."""
    rewards: Tensor
    """[B, T], after reward treatment (clipping or scaling by returns), before PopArt or scaling by game."""
    dones: Tensor
    """bool [B, T], whether the episode ended with step t."""
    discounts: Tensor
    """[B, T]; 0 where the episode ended."""
    actions: Tensor
    """[B, T, K], K = 1 for a discrete action."""
    log_probs: Tensor
    """[B, T], of the actions, under the behaviour policy."""
    logits: Tensor
    """[B, T, A], the behaviour policy's distribution parameters."""
    games: Tensor
    """int64 [B], index of each trajectory's game (or task)."""
    valids: Tensor
    """bool [B, T], steps that count in the losses."""
    versions: Tensor
    """[B, T], number of the update whose weights acted; for summaries only."""

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def resets(self) -> Tensor:
        """bool [B, T + 1], where the state is zeroed before the step; False at step 0, whose ``state`` is as stored."""
        return torch.cat([torch.zeros_like(self.dones[:, :1]), self.dones], dim=1)

    def rows(self, index: slice | Tensor) -> Rollout:
        """The trajectories that ``index`` selects."""
        observations = {name: entry[index] for name, entry in self.observations.items()}
        tensors = {name: tensor[index] for name, tensor in self.tree().items() if name != "observations"}
        return Rollout(observations, **tensors)

    def tree(self) -> dict[str, Any]:
        """Tensors by name, observations nested, as :class:`srwm_agents.graphs.Graphed` takes them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def minibatches(self, size: int, *, shuffle: bool = False) -> Iterator[Rollout]:
        """Minibatches of ``size`` whole trajectories, in order or at random; the last may be smaller."""
        number = len(self)
        if number == size:
            yield self
            return
        order = torch.randperm(number, device=self.rewards.device) if shuffle else None
        for start in range(0, number, size):
            part = slice(start, start + size)
            yield self.rows(part if order is None else order[part])
