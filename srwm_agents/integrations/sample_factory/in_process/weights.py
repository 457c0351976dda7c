"""Double-buffered weights: from the learner thread to the actor thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srwm_agents.integrations.sample_factory.in_process.streams import Mark


def tensors_of(model: nn.Module) -> list[Tensor]:
    """A model's parameters and buffers, in a fixed order."""
    return [*(p.detach() for p in model.parameters()), *model.buffers()]


class WeightsHandover:
    """A copy of the latest weights that the learner writes and the actor reads.

    The actor never sees half-updated weights, and learner and actor wait for each other only during a copy.
    """

    def __init__(self, device: torch.device) -> None:
        """``device``: of both models."""
        self.version = -1
        """Version of the stored weights; -1: none yet."""
        self._weights: list[Tensor] = []
        self._lock = threading.Lock()
        self._put, self._taken = Mark(device), Mark(device)

    @torch.no_grad()
    def put(self, weights: Sequence[Tensor], version: int) -> None:
        """Store a copy of ``weights`` as ``version``; versions must increase."""
        with self._lock:
            if not self._weights:
                self._weights = [torch.empty_like(tensor) for tensor in weights]
            self._taken.hold()
            _copy(self._weights, weights)
            self._put.set()
            self.version = version

    @torch.no_grad()
    def take(self, weights: Sequence[Tensor], version: int) -> int:
        """Overwrite ``weights``, which are of ``version``, if a newer one is stored; returns their version then."""
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
