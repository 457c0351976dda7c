"""Functions as CUDA graphs; what training makes of them is tested where it uses them."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.graphs import WARM_UP, Graphed

pytestmark = pytest.mark.gpu


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


def test_what_a_function_changes_is_changed_once_a_call() -> None:
    total = torch.zeros((), device="cuda")
    graphed = Graphed(lambda inputs: total.add_(inputs["x"]))
    for n in range(1, WARM_UP + 5):
        graphed({"x": torch.ones((), device="cuda")})
        assert total.item() == n


def test_every_replay_draws_new_random_numbers() -> None:
    graphed = Graphed(lambda _inputs: torch.rand(4, device="cuda"))
    draws = [graphed({}).clone() for _ in range(WARM_UP + 5)]
    assert all((one != other).any() for i, one in enumerate(draws) for other in draws[:i])
