"""Functions as CUDA graphs; what training makes of them is tested where it uses them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srwm_agents.graphs import WARM_UP, Graphed

gpu = pytest.mark.gpu


class FakeGraph:
    """A CUDA graph without a device: it replays a captured function, and cannot replay what was never captured."""

    def __init__(self) -> None:
        self.work: Any = None

    def replay(self) -> None:
        if self.work is None:
            raise RuntimeError("this graph was not captured")
        self.work()


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """The names of ``torch.cuda`` that ``Graphed`` uses; returns the graphs whose capture has succeeded."""
    captured: list[FakeGraph] = []

    @contextmanager
    def capture(graph: FakeGraph, **_options: Any) -> Iterator[None]:
        yield  # an exception from the function goes through here
        graph.work = lambda: None
        captured.append(graph)

    stream = SimpleNamespace(priority=0, wait_stream=lambda _other: None)
    for name, fake in {
        "CUDAGraph": FakeGraph,
        "graph": capture,
        "Stream": lambda **_options: stream,
        "current_stream": lambda: stream,
        "stream": lambda _stream: nullcontext(),
        "set_stream": lambda _stream: None,
        "graph_pool_handle": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return captured


def test_a_capture_that_failed_is_not_kept(fake_cuda: list[FakeGraph]) -> None:
    calls = 0

    def function(inputs):
        nonlocal calls
        calls += 1
        if calls == WARM_UP + 1:
            raise RuntimeError("no capture today")
        return inputs["x"] + 1

    graphed, x = Graphed(function), {"x": torch.ones(2)}
    for _ in range(WARM_UP):
        graphed(x)
    with pytest.raises(RuntimeError, match="no capture today"):
        graphed(x)
    assert torch.equal(graphed(x), torch.full((2,), 2.0)), "the next call captures anew"
    assert len(fake_cuda) == 1
    graphed(x)
    assert calls == WARM_UP + 2, "from there on it is replayed"


@pytest.mark.parametrize(("most", "captures"), [(None, 2), (2, 2), (1, 4)])
def test_only_the_latest_captures_are_kept(fake_cuda: list[FakeGraph], most: int | None, captures: int) -> None:
    graphed = Graphed(lambda inputs: inputs["x"] + 1, warm_up=1, most_captures=most)
    for size in (2, 2, 2, 3, 3, 3, 2, 2, 2, 3, 3, 3):
        assert torch.equal(graphed({"x": torch.ones(size)}), torch.full((size,), 2.0))
    assert len(fake_cuda) == captures


@gpu
def test_a_capture_that_failed_is_not_replayed() -> None:
    """An exception of the function's own: a call that CUDA forbids in a capture would spoil the whole process."""
    fails = True

    def function(inputs):
        doubled = inputs["x"] * 2
        if fails and torch.cuda.is_current_stream_capturing():
            raise ValueError("no capture today")
        return doubled + torch.rand(3, device="cuda")

    graphed = Graphed(function)
    x = torch.ones(3, device="cuda")
    for _ in range(WARM_UP):
        graphed({"x": x})
    before = torch.cuda.current_stream()
    for _ in range(2):
        with pytest.raises(ValueError, match="no capture today"):
            graphed({"x": x})
        assert torch.cuda.current_stream() == before
    fails = False
    for n in range(1, 4):
        result = graphed({"x": n * x})
        assert ((result >= 2 * n) & (result < 2 * n + 1)).all()


INVALIDATED = """
import torch
from srwm_agents.graphs import WARM_UP, Graphed

def function(inputs):
    if torch.cuda.is_current_stream_capturing():
        inputs["x"].sum().item()  # to wait for the device is what a capture does not allow
    return inputs["x"] * 2

graphed, x = Graphed(function), torch.ones(3, device="cuda")
for _ in range(WARM_UP):
    graphed({"x": x})
for _ in range(2):
    try:
        graphed({"x": x})
    except RuntimeError as error:
        print("refused")
"""


@gpu
def test_a_capture_that_the_device_refused_is_never_replayed() -> None:
    """In a process of its own: PyTorch's allocator and generator do not recover from it."""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", INVALIDATED], cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["refused", "refused"], done.stderr


@gpu
def test_replays_compute_what_the_function_does_on_new_inputs_of_several_shapes() -> None:
    calls = []

    def function(inputs):
        calls.append(inputs["a"].shape)
        return inputs["a"] * 2 + inputs["nested"]["b"], inputs["a"].sum()

    graphed = Graphed(function)
    for _ in range(WARM_UP + 3):
        for size in (3, 5):
            a, b = torch.randn(size, device="cuda"), torch.randn(size, device="cuda")
            doubled, total = graphed({"a": a, "nested": {"b": b}})
            torch.testing.assert_close(doubled, a * 2 + b)
            torch.testing.assert_close(total, a.sum())
    assert len(calls) == 2 * (WARM_UP + 1), "after the capture the function itself is not called"


@gpu
def test_what_a_function_changes_is_changed_once_a_call() -> None:
    total = torch.zeros((), device="cuda")
    graphed = Graphed(lambda inputs: total.add_(inputs["x"]))
    for n in range(1, WARM_UP + 5):
        graphed({"x": torch.ones((), device="cuda")})
        assert total.item() == n


@gpu
def test_every_replay_draws_new_random_numbers() -> None:
    graphed = Graphed(lambda _inputs: torch.rand(4, device="cuda"))
    draws = [graphed({}).clone() for _ in range(WARM_UP + 5)]
    assert all((one != other).any() for i, one in enumerate(draws) for other in draws[:i])
