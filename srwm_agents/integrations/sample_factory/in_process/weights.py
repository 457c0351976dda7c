"""How new weights get from the thread that learns to the one that acts."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srwm_agents.integrations.sample_factory.in_process.streams import Mark


def tensors_of(model: nn.Module) -> list[Tensor]:
    """All that makes two models of one architecture behave alike: parameters and buffers, in a fixed order."""
    return [*(p.detach() for p in model.parameters()), *model.buffers()]


class WeightsHandover:
    """The latest finished weights, in memory of their own: the learner puts them down, the actor picks them up.

    So neither ever sees weights that the other is in the middle of changing, and neither waits for the other but for
    the copy itself.
    """

    def __init__(self, device: torch.device) -> None:
        """``device`` that both models are on."""
        self.version = -1
        """Of the weights that lie here; -1: none yet."""
        self._weights: list[Tensor] = []
        self._lock = threading.Lock()
        self._put, self._taken = Mark(device), Mark(device)

    @torch.no_grad()
    def put(self, weights: Sequence[Tensor], version: int) -> None:
        """Lay down ``weights`` as ``version``; a version's number only grows."""
        with self._lock:
            if not self._weights:
                self._weights = [torch.empty_like(tensor) for tensor in weights]
            self._taken.hold()
            _copy(self._weights, weights)
            self._put.set()
            self.version = version

    @torch.no_grad()
    def take(self, weights: Sequence[Tensor], version: int) -> int:
        """Overwrite ``weights``, which are of ``version``, if there are newer ones; returns the version they are of."""
        if self.version == version:
            return version
        with self._lock:
            self._put.hold()
            _copy(weights, self._weights)
            self._taken.set()
            return self.version


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
