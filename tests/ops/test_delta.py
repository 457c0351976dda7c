"""The naive delta rule: against the formula for one head, gradcheck, resets, errors."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.ops import BackendUnavailableError, delta_rule

B, T, H, D, O = 2, 5, 2, 3, 4  # noqa: E741


def make_inputs():
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(B, T, H, D, generator=g, dtype=torch.float64).softmax(-1) for _ in range(2))
    v = torch.randn(B, T, H, O, generator=g, dtype=torch.float64)
    beta = torch.rand(B, T, H, generator=g, dtype=torch.float64)
    state = torch.randn(B, H, D, O, generator=g, dtype=torch.float64)
    return q, k, v, beta, state


def test_equals_the_formula_head_by_head() -> None:
    q, k, v, beta, state = make_inputs()
    resets = torch.tensor([[False, False, True, False, False], [True, False, False, False, True]])
    y, final = delta_rule(q, k, v, beta, state, resets=resets)
    for b in range(B):
        for h in range(H):
            s = state[b, h].clone()
            for t in range(T):
                if resets[b, t]:
                    s = torch.zeros_like(s)
                s = s + beta[b, t, h] * torch.outer(k[b, t, h], v[b, t, h] - s.T @ k[b, t, h])
                torch.testing.assert_close(y[b, t, h], s.T @ q[b, t, h])
            torch.testing.assert_close(final[b, h], s)


def test_a_full_write_is_read_back_exactly() -> None:
    key = torch.eye(D, dtype=torch.float64)[0].expand(1, 1, 1, D)
    value = torch.randn(1, 1, 1, O, dtype=torch.float64)
    y, _ = delta_rule(key, key, value, torch.ones(1, 1, 1, dtype=torch.float64), torch.randn(1, 1, D, O).double())
    torch.testing.assert_close(y, value)


@pytest.mark.parametrize("with_resets", [False, True])
def test_gradcheck_in_every_argument(with_resets: bool) -> None:
    leaves = [tensor.requires_grad_() for tensor in make_inputs()]
    resets = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.3 if with_resets else None
    assert torch.autograd.gradcheck(lambda *args: delta_rule(*args, resets=resets), leaves)


def test_no_steps_return_the_state() -> None:
    q, k, v, beta, state = make_inputs()
    y, final = delta_rule(q[:, :0], k[:, :0], v[:, :0], beta[:, :0], state)
    assert y.shape == (B, 0, H, O)
    torch.testing.assert_close(final, state)


def test_wrong_arguments_are_named() -> None:
    q, k, v, beta, state = make_inputs()
    with pytest.raises(ValueError, match="k has shape"):
        delta_rule(q, k[:, :-1], v, beta)
    with pytest.raises(ValueError, match="beta has shape"):
        delta_rule(q, k, v, beta[..., None])
    with pytest.raises(ValueError, match="state has shape"):
        delta_rule(q, k, v, beta, state[:, :1])
    with pytest.raises(ValueError, match=r"k is torch.float32"):
        delta_rule(q, k.float(), v, beta)
    with pytest.raises(BackendUnavailableError):
        delta_rule(q, k, v, beta, backend="triton")
