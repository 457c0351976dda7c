"""Comparing an op's methods with its naive one in float64: outputs, final state and every gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

Call = Callable[..., Sequence[Tensor]]
"""(tensors, resets, method) -> outputs, the parts of the final state among them."""


def results(call: Call, inputs: Sequence[Tensor], resets: Tensor | None, method: str) -> list[Tensor]:
    """Outputs, and the gradients of all inputs for random gradients of all outputs, in the inputs' dtype."""
    leaves = [entry.detach().clone().requires_grad_() for entry in inputs]
    outputs = call(leaves, resets, method)
    generator = torch.Generator().manual_seed(7)
    upstream = [torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z.dtype) for z in outputs]
    return [z.detach() for z in (*outputs, *torch.autograd.grad(outputs, leaves, upstream))]


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is NaN: whatever a kernel fails to write shows."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
        original = getattr(owner, name)

        def poisoned(*args, _original=original, **kwargs):
            tensor = _original(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(owner, name, poisoned)


@pytest.fixture
def assert_equals_naive() -> Callable[..., None]:
    """:func:`_assert_equals_naive`."""
    return _assert_equals_naive


def _assert_equals_naive(
    call: Call, inputs: Sequence[Tensor], resets: Tensor | None, method: str, *, float32: float
) -> None:
    """``inputs`` of float64. In float64 the methods agree to 1e-10; in float32 the error, relative to the largest
    number of its tensor, is at most ``float32``.
    """
    expected = results(call, inputs, resets, "naive")
    for got, exact in zip(results(call, inputs, resets, method), expected, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10)
    narrow = results(call, [entry.float() for entry in inputs], resets, method)
    for got, exact in zip(narrow, expected, strict=True):
        error = (got.double() - exact).abs().max() / exact.abs().max().clamp(min=1e-3)
        assert error <= float32  # NaN fails, too


@pytest.fixture
def some_resets() -> Callable[[int, int], Tensor]:
    """(batch, steps) -> resets at the first step of one episode, the last of another, and one step in ten of all."""

    def made(batch: int, steps: int) -> Tensor:
        resets = torch.rand(batch, steps, generator=torch.Generator().manual_seed(3)) < 0.1
        resets[0, 0] = resets[-1, -1] = True
        return resets

    return made


@pytest.fixture
def assert_an_ended_episode_leaves_nothing() -> Callable[..., None]:
    """:func:`_assert_an_ended_episode_leaves_nothing`."""
    return _assert_an_ended_episode_leaves_nothing


def _assert_an_ended_episode_leaves_nothing(
    call: Call, inputs: Sequence[Tensor], number_of_states: int, method: str
) -> None:
    """NaN and infinity in state and inputs before a reset reach no later output, no final state, no later gradient.

    The last ``number_of_states`` of ``inputs`` are the state's parts, the others [B, T, ...] with T > 4.
    """
    sequences, state = inputs[: len(inputs) - number_of_states], inputs[len(inputs) - number_of_states :]
    for broken in (torch.nan, torch.inf):
        spoilt = [torch.cat([torch.full_like(z[:, :3], broken), z[:, 3:]], dim=1) for z in sequences]
        leaves = [z.requires_grad_() for z in [*spoilt, *(torch.full_like(z, broken) for z in state)]]
        resets = torch.zeros(sequences[0].shape[:2], dtype=torch.bool)
        resets[:, 3] = True
        y, *final = call(leaves, resets, method)
        rest = [z[:, 3:] for z in sequences]
        expected, *expected_final = call([*rest, *(torch.zeros_like(z) for z in state)], None, "naive")
        torch.testing.assert_close(y[:, 3:], expected)
        torch.testing.assert_close(final, expected_final)
        grads = torch.autograd.grad([y[:, 3:].sum(), *(z.sum() for z in final)], leaves)
        for grad in grads[: len(sequences)]:
            assert grad[:, 3:].isfinite().all()
