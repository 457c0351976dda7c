"""What learners on several processes tell each other, as the algorithm sees it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Pool(Protocol):
    """The learners that share one update, each with its own part of the batch."""

    @property
    def number(self) -> int:
        """How many they are."""
        ...

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over the learners; may overwrite ``values``."""
        ...

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient of ``model`` by its mean over the learners."""
        ...


class SingleLearner:
    """The :class:`Pool` of one learner alone, in which nothing is exchanged."""

    number = 1

    def mean(self, values: Tensor) -> Tensor:
        return values

    def average_gradients(self, model: nn.Module) -> None:
        pass


SINGLE = SingleLearner()
