"""The linear recurrence: against a loop over numbers, methods against the naive one, resets, transforms, errors."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.ops import linear_scan

METHODS = ("auto", "steps", "doubling")


def inputs(batch: int = 3, steps: int = 9, width: tuple[int, ...] = (2, 3)):
    g = torch.Generator().manual_seed(0)
    a = 2 * torch.rand(batch, steps, *width, generator=g, dtype=torch.float64) - 1
    b = torch.randn(batch, steps, *width, generator=g, dtype=torch.float64)
    return a, b, torch.randn(batch, *width, generator=g, dtype=torch.float64)


def call(tensors, resets, method):
    a, b, state = tensors
    return linear_scan(a, b, state, resets=resets, method=method)


def test_equals_a_loop_over_numbers() -> None:
    a, b, state = inputs(2, 5, (1,))
    resets = torch.tensor([[False, False, True, False, False], [True, False, False, False, True]])
    states, final = linear_scan(a, b, state, resets=resets, method="naive")
    for row in range(2):
        h = state[row, 0].item()
        for t in range(5):
            h = a[row, t, 0].item() * (0.0 if resets[row, t] else h) + b[row, t, 0].item()
            assert states[row, t, 0].item() == pytest.approx(h, abs=1e-14)
        assert final[row, 0].item() == pytest.approx(h, abs=1e-14)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 64, 130])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_equals_the_naive_one(
    method: str, steps: int, with_resets: bool, assert_equals_naive, some_resets
) -> None:
    assert_equals_naive(call, inputs(steps=steps), some_resets(3, steps) if with_resets else None, method, float32=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_factors_of_zero_and_above_one_are_exact(method: str, assert_equals_naive, some_resets) -> None:
    a, b, state = inputs(steps=100)
    a[:, ::7] = 0
    a[:, 1::7] = 2
    assert_equals_naive(call, (a, b, state), some_resets(3, 100), method, float32=1e-5)
    # 64 factors of 2 in a row: from an empty state that nothing is written to stays 0.
    zeros = torch.zeros(1, 200, 1)
    assert not linear_scan(torch.full((1, 200, 1), 2.0), zeros, zeros[:, 0], method=method)[0].any()


@pytest.mark.parametrize("method", METHODS)
def test_an_ended_episode_leaves_nothing(method: str, assert_an_ended_episode_leaves_nothing) -> None:
    assert_an_ended_episode_leaves_nothing(call, inputs(), 1, method)


@pytest.mark.parametrize("method", ["naive", *METHODS])
def test_gradients_once_and_twice(method: str) -> None:
    leaves = [z.requires_grad_() for z in inputs(2, 3, (2,))]
    resets = torch.tensor([[False, True, False], [True, False, False]])
    for given in (None, resets):
        assert torch.autograd.gradcheck(lambda *z, given=given: linear_scan(*z, resets=given, method=method), leaves)
        assert torch.autograd.gradgradcheck(
            lambda *z, given=given: linear_scan(*z, resets=given, method=method), leaves
        )


@pytest.mark.parametrize("method", METHODS)
def test_vmap_and_functional_gradients(method: str, some_resets) -> None:
    a, b, state = inputs()
    resets = some_resets(3, 9)

    def loss(a, b, state, resets):
        states, final = linear_scan(a, b, state, resets=resets, method=method)
        return states.square().sum() + final.square().sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 2))
    mapped = torch.func.vmap(gradient, in_dims=(0, None, 0, None))(
        torch.stack([a, a / 2]), b, torch.stack([state, -state]), resets
    )
    for entry, (a_now, state_now) in enumerate(((a, state), (a / 2, -state))):
        leaves = [z.clone().requires_grad_() for z in (a_now, b, state_now)]
        expected = torch.autograd.grad(loss(leaves[0], leaves[1], leaves[2], resets), leaves)
        torch.testing.assert_close([z[entry] for z in mapped], list(expected))


def test_no_steps_return_the_state() -> None:
    a, b, state = inputs(steps=0)
    states, final = linear_scan(a, b, state)
    assert states.shape == b.shape
    torch.testing.assert_close(final, state)


def test_wrong_arguments_are_named() -> None:
    a, b, state = inputs()
    for wrong, message in (
        (lambda: linear_scan(a, b[:, :1], state), r"b has shape \[3, 1, 2, 3\], expected a's = \[3, 9, 2, 3\]"),
        (lambda: linear_scan(a, b, state[:1]), r"state has shape \[1, 2, 3\], expected"),
        (lambda: linear_scan(a, b, state.float()), r"state is torch.float32, but a is torch.float64"),
        (lambda: linear_scan(a, b, state, resets=torch.zeros(3, 8)), r"resets has shape \[3, 8\]"),
        (lambda: linear_scan(a, b, state, method="fast"), "method is 'fast', allowed: auto, naive, steps, doubling"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
