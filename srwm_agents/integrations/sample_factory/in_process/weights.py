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
        self.iterations = -1
        """Training iterations that are in the stored weights: the first weights are those after none."""
        self._weights: list[Tensor] = []
        self._stored = threading.Condition()
        self._put, self._taken = Mark(device), Mark(device)

    @torch.no_grad()
    def put(self, weights: Sequence[Tensor], version: int) -> None:
        """Store a copy of ``weights`` as ``version``, once a training iteration; versions must increase."""
        with self._stored:
            if not self._weights:
                self._weights = [torch.empty_like(tensor) for tensor in weights]
            self._taken.hold()
            _copy(self._weights, weights)
            self._put.set()
            self.version = version
            self.iterations += 1
            self._stored.notify_all()

    @torch.no_grad()
    def take(self, weights: Sequence[Tensor], version: int) -> int:
        """Overwrite ``weights``, which are of ``version``, if a newer one is stored; returns their version then."""
        if self.version == version:
            return version
        with self._stored:
            self._put.hold()
            _copy(weights, self._weights)
            self._taken.set()
            return self.version

    def wait_for(self, iterations: int, seconds: float) -> bool:
        """Wait until the stored weights have so many training iterations in them, at most for ``seconds``."""
        with self._stored:
            return self._stored.wait_for(lambda: self.iterations >= iterations, seconds)


def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    # One launch for all tensors of a type; one for each tensor would take the host a millisecond.
    of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        pair = of_type.setdefault(target.dtype, ([], []))
        pair[0].append(target)
        pair[1].append(source)
    for of_targets, of_sources in of_type.values():
        torch._foreach_copy_(of_targets, of_sources, non_blocking=True)  # type: ignore[attr-defined]
