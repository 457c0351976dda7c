"""CUDA graphs of functions of tensors: one launch in place of hundreds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output")

_ONE_AT_A_TIME = threading.Lock()
"""While one thread captures, no other may replay: random numbers come from one generator, which is then in a mode of
its own."""

WARM_UP = 3
"""Ordinary calls before a capture: in them Triton and Inductor compile, cuDNN chooses its algorithms, and optimisers
make their state."""


@dataclass
class _Capture:
    """The capture for one set of input shapes; ``graph`` is None until it has succeeded."""

    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    inputs: Any = None
    outputs: Any = None


class Graphed(Generic[Output]):
    """Calls ``function`` a few times as it is, then captures it and from there on replays the capture.

    Acting and learning on small batches are bound by the host, which launches kernels one after another: a replay
    launches all of them at once. The function must launch the same kernels for the same shapes, whatever the values,
    without waiting for the device; what it changes (weights, optimiser state) must stay at the same addresses. Each
    set of input shapes has a capture of its own, which holds the memory of its inputs and outputs.

    The outputs of a replay are overwritten by the next call: use or copy them before it.
    """

    def __init__(
        self, function: Callable[[Any], Output], *, warm_up: int = WARM_UP, most_captures: int | None = None
    ) -> None:
        """Wrap a function.

        Args:
            function: takes one mapping, nested or not, whose leaves are CUDA tensors, and returns tensors.
            warm_up: ordinary calls before a capture.
            most_captures: input shapes whose captures are kept, the latest; None: all.
        """
        self._function = function
        self._warm_up = warm_up
        self._most_captures = most_captures
        self._captures: dict[tuple[Any, ...], _Capture] = {}
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __call__(self, inputs: Mapping[str, Any]) -> Output:
        """The function's value; executed once, captured or not.

        Raises:
            Whatever the function or its capture raises; nothing of a failed capture is kept.
        """
        capture = self._captures.setdefault(tuple(_signature(inputs)), _Capture())
        if capture.graph is not None:
            _copy(inputs, capture.inputs)
        elif capture.calls < self._warm_up:
            capture.calls += 1
            return self._aside(inputs)
        else:
            self._capture(capture, inputs)
        assert capture.graph is not None
        with _ONE_AT_A_TIME:
            capture.graph.replay()
        return capture.outputs

    def _capture(self, capture: _Capture, inputs: Mapping[str, Any]) -> None:
        """Fill ``capture``, once all has succeeded: of a capture that failed nothing may ever be replayed."""
        copy, graph, current = _clone(inputs), torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with _ONE_AT_A_TIME, torch.cuda.graph(
                # What other threads do in the meantime does not concern this capture.
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):  # fmt: skip
                outputs = self._function(copy)
        except BaseException:
            # Where the end of the capture fails as well, PyTorch leaves its stream current and its pool in use.
            torch.cuda.set_stream(current)
            self._pool = torch.cuda.graph_pool_handle()
            raise
        capture.inputs, capture.graph, capture.outputs = copy, graph, outputs
        if self._most_captures is not None:  # the others go after this capture, which has their memory pool
            captured = [signature for signature, one in self._captures.items() if one.graph is not None]
            for signature in captured[: -self._most_captures]:
                del self._captures[signature]

    def _aside(self, inputs: Mapping[str, Any]) -> Output:
        # On the stream of the captures: autograd binds what it accumulates gradients with to the stream of its first
        # use, and a capture must not touch another one.
        if self._stream is None:
            # Of the caller's priority: that is what a replay's kernels keep.
            self._stream = torch.cuda.Stream(priority=torch.cuda.current_stream().priority)
            self._pool = torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self._function(inputs)
        current.wait_stream(self._stream)
        return outputs


def _signature(tree: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Names, shapes and dtypes of the leaves."""
    found: list[tuple[Any, ...]] = []
    for name, entry in tree.items():
        found += [(name, entry.shape, entry.dtype)] if isinstance(entry, Tensor) else _signature(entry)
    return found


def _clone(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.clone()
    return type(tree)((name, _clone(entry)) for name, entry in tree.items())


def _copy(source: Any, target: Any) -> None:
    if isinstance(source, Tensor):
        target.copy_(source)
    else:
        for name, entry in source.items():
            _copy(entry, target[name])
