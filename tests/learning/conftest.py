"""Two learners that share a batch, as threads of this process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class ThreadPool:
    """A :class:`srwm_agents.learning.pooling.Pool` of threads, with a barrier at every reduction."""

    world_size = 2

    def __init__(self) -> None:
        self._barrier = threading.Barrier(self.world_size, timeout=20)
        self._given: dict[int, Tensor] = {}

    def mean(self, values: Tensor) -> Tensor:
        self._given[threading.get_ident()] = values.clone()
        self._barrier.wait()
        mean = torch.stack(list(self._given.values())).mean(0)
        self._barrier.wait()
        self._given.clear()
        self._barrier.wait()
        return mean

    def average_gradients(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(self.mean(parameter.grad))


@pytest.fixture
def as_two_learners():
    """``run(function, whole)`` calls function(copy of whole, pool, index) in two threads; returns both results."""

    def run(function: Callable[[Any, ThreadPool, int], Any], whole: Any) -> list[Any]:
        pool = ThreadPool()
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(function, copy.deepcopy(whole), pool, half) for half in range(2)]
            return [call.result() for call in calls]

    return run
