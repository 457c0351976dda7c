"""Reductions over the learner processes that share one batch."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Pool(Protocol):
    """Learners that make one update together, each with its part of the batch.

    All of them must make the same calls in the same order.
    """

    @property
    def world_size(self) -> int:
        """Number of learners."""
        ...

    @property
    def is_main(self) -> bool:
        """Whether this learner is the one that saves."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the learners; may overwrite ``values``."""
        ...

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient of ``model`` by its mean over the learners."""
        ...

    def broadcast(self, model: nn.Module) -> None:
        """Overwrite parameters and buffers of ``model`` by the main learner's."""
        ...

    def largest(self, number: int) -> int:
        """The largest of the learners' numbers; returns when all have called it."""
        ...


class SingleLearner:
    """The :class:`Pool` of a single learner: every reduction is the identity."""

    world_size = 1
    is_main = True

    def mean(self, values: Tensor) -> Tensor:
        return values

    def average_gradients(self, model: nn.Module) -> None:
        pass

    def broadcast(self, model: nn.Module) -> None:
        pass

    def largest(self, number: int) -> int:
        return number


SINGLE = SingleLearner()
