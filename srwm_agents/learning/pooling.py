"""Reductions over the learner processes that share one batch."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Pool(Protocol):
    """Learners that make one update together, each with its part of the batch."""

    @property
    def world_size(self) -> int:
        """Number of learners."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the learners; may overwrite ``values``."""
        ...

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient of ``model`` by its mean over the learners."""
        ...


class SingleLearner:
    """The :class:`Pool` of a single learner: every reduction is the identity."""

    world_size = 1

    def mean(self, values: Tensor) -> Tensor:
        return values

    def average_gradients(self, model: nn.Module) -> None:
        pass


SINGLE = SingleLearner()
