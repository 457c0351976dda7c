"""The mLSTM: against the formula without a stabiliser, chunked against naive, extreme gates, errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srwm_agents.ops import MLSTMState, mlstm

B, H, D, O = 3, 2, 4, 5  # noqa: E741


def inputs(steps: int = 7, batch: int = B):
    g = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(batch, *size, generator=g, dtype=torch.float64)

    gates = 2 * normal(steps, H), F.logsigmoid(normal(steps, H) + 2)
    state = normal(H, D, O), normal(H, D), normal(H)
    return normal(steps, H, D), normal(steps, H, D), normal(steps, H, O), *gates, *state


def call(tensors, resets, method):
    q, k, v, log_input, log_forget, *state = tensors
    y, final = mlstm(q, k, v, log_input, log_forget, MLSTMState(*state), resets=resets, method=method)
    return y, *final


def test_equals_the_papers_formula_without_a_stabiliser(some_resets) -> None:
    """Section 2.3, head by head; the state is in units of exp(m)."""
    q, k, v, log_input, log_forget, *state = inputs(5)
    resets = some_resets(B, 5)
    y, final = mlstm(q, k, v, log_input, log_forget, MLSTMState(*state), resets=resets, method="naive")
    for b in range(B):
        for h in range(H):
            memory = (state[0][b, h] * state[2][b, h].exp()).T  # the paper's matrix is values by keys
            normaliser = state[1][b, h] * state[2][b, h].exp()
            for t in range(5):
                if resets[b, t]:
                    memory, normaliser = torch.zeros_like(memory), torch.zeros_like(normaliser)
                admit, forget = log_input[b, t, h].exp(), log_forget[b, t, h].exp()
                memory = forget * memory + admit * torch.outer(v[b, t, h], k[b, t, h])
                normaliser = forget * normaliser + admit * k[b, t, h]
                below = (normaliser @ q[b, t, h]).abs().clamp(min=1)
                torch.testing.assert_close(y[b, t, h], memory @ q[b, t, h] / below)
            scale = final.log_scale[b, h].exp()
            torch.testing.assert_close(final.memory[b, h] * scale, memory.T)
            torch.testing.assert_close(final.normaliser[b, h] * scale, normaliser)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 64, 130])
def test_chunks_equal_the_naive_steps(steps: int, with_resets: bool, assert_equals_naive, some_resets) -> None:
    resets = some_resets(B, steps) if with_resets else None
    # h divides by |n . q|, which may be near 0.
    assert_equals_naive(call, inputs(steps), resets, "chunked", float32=1e-4)


@pytest.mark.parametrize("size", [-1000.0, -90.0, 90.0, 1000.0])
def test_gates_of_any_size(size: float, assert_equals_naive, some_resets) -> None:
    """exp(90) and exp(-1000) are no float32 numbers."""
    q, k, v, log_input, log_forget, *state = inputs(70)
    log_input = torch.where(log_input > 2, size + log_input, log_input)
    log_forget = torch.where(log_forget < -0.3, -abs(size), log_forget)
    tensors = (q, k, v, log_input, log_forget, *state)
    assert_equals_naive(call, tensors, some_resets(B, 70), "chunked", float32=1e-3)
    closed = mlstm(q, k, v, torch.full_like(log_input, -1000.0), torch.full_like(log_forget, -100.0))[0]
    assert closed.abs().max() < 1e-6


def test_an_ended_episode_leaves_nothing(assert_an_ended_episode_leaves_nothing) -> None:
    for method in ("naive", "chunked"):
        assert_an_ended_episode_leaves_nothing(call, inputs(), 3, method)


@pytest.mark.parametrize("method", ["naive", "chunked"])
def test_gradients(method: str) -> None:
    leaves = [z.requires_grad_() for z in inputs(3, 2)]
    resets = torch.tensor([[False, True, False], [True, False, False]])
    assert torch.autograd.gradcheck(lambda *z: call(z, resets, method), leaves)


def test_no_steps_return_the_state() -> None:
    tensors = inputs(0)
    y, *final = call(tensors, None, "auto")
    assert y.shape == (B, 0, H, O)
    torch.testing.assert_close(final, list(tensors[5:]))


def test_wrong_arguments_are_named() -> None:
    q, k, v, log_input, log_forget, *parts = inputs()
    state = MLSTMState(*parts)
    for wrong, message in (
        (lambda: mlstm(q, k, v[0], log_input, log_forget), r"v has shape \[7, 2, 5\], expected \[B, T, H, width\]"),
        (lambda: mlstm(q, k, v, log_input[:, :1], log_forget), r"log_input has shape \[3, 1, 2\], expected \[B, T, H"),
        (lambda: mlstm(q, k, v, log_input, log_forget.float()), "log_forget is torch.float32, but q is torch.float64"),
        (
            lambda: mlstm(q, k, v, log_input, log_forget, state._replace(log_scale=parts[1])),
            r"state.log_scale has shape \[3, 2, 4\], expected \[B, H\]",
        ),
        (lambda: mlstm(q, k, v, log_input, log_forget, method="cpu"), "method is 'cpu', allowed: auto, naive, chunked"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
