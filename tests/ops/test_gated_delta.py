"""The gated delta rule: against the formula for one head, chunked against naive, extremes, transforms, errors."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srwm_agents.ops import delta_rule, gated_delta_rule
from srwm_agents.ops.chunks import inverse_unit_lower

B, H, D, O = 3, 2, 4, 5  # noqa: E741


def inputs(steps: int = 7, batch: int = B):
    g = torch.Generator().manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(batch, *size, generator=g, dtype=torch.float64)

    q, k = (F.normalize(normal(steps, H, D), dim=-1) for _ in range(2))
    beta, log_decay = normal(steps, H).sigmoid(), -normal(steps, H).exp()
    return q, k, normal(steps, H, O), beta, log_decay, normal(H, D, O)


def call(tensors, resets, method):
    return gated_delta_rule(*tensors, resets=resets, method=method)


def test_equals_the_papers_formula_head_by_head(some_resets) -> None:
    q, k, v, beta, log_decay, state = inputs(5)
    resets = some_resets(B, 5)
    y, final = gated_delta_rule(q, k, v, beta, log_decay, state, resets=resets, method="naive")
    for b in range(B):
        for h in range(H):
            s = state[b, h].T.clone()  # the paper's matrix is values by keys
            for t in range(5):
                if resets[b, t]:
                    s = torch.zeros_like(s)
                key, rate = k[b, t, h], beta[b, t, h]
                s = s @ (log_decay[b, t, h].exp() * (torch.eye(D) - rate * torch.outer(key, key)))
                s = s + rate * torch.outer(v[b, t, h], key)
                torch.testing.assert_close(y[b, t, h], s @ q[b, t, h])
            torch.testing.assert_close(final[b, h], s.T)


@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 7, 32, 75])
def test_chunks_equal_the_naive_rule(steps: int, with_resets: bool, assert_equals_naive, some_resets) -> None:
    resets = some_resets(B, steps) if with_resets else None
    assert_equals_naive(call, inputs(steps), resets, "chunked", float32=1e-5)


def test_without_decay_it_is_the_delta_rule() -> None:
    q, k, v, beta, log_decay, state = inputs(40)
    got = gated_delta_rule(q, k, v, beta, torch.zeros_like(log_decay), state)
    torch.testing.assert_close(got, delta_rule(q, k, v, beta, state, backend="naive"))


@pytest.mark.parametrize("strength", [1e-6, 30.0, 300.0])
def test_strong_and_weak_decays_and_repeated_keys(strength: float, assert_equals_naive, some_resets) -> None:
    """What a product of decays over a chunk would make 0 or infinite, or a series of its powers imprecise."""
    q, k, v, beta, log_decay, state = inputs(75)
    k = k[:, :1].expand_as(k)
    log_decay = torch.where(log_decay < -1.5, -strength, log_decay / 100)
    beta = torch.ones_like(beta) * 0.999
    assert_equals_naive(call, (q, k, v, beta, log_decay, state), some_resets(B, 75), "chunked", float32=1e-5)


def test_an_ended_episode_leaves_nothing(assert_an_ended_episode_leaves_nothing) -> None:
    for method in ("naive", "chunked"):
        assert_an_ended_episode_leaves_nothing(call, inputs(), 1, method)


def test_what_is_not_finite_stays_until_a_reset() -> None:
    q, k, v, beta, log_decay, state = inputs(9)
    v[0, 4, 0, 0] = torch.nan
    resets = torch.zeros(B, 9, dtype=torch.bool)
    resets[0, 7] = True
    for method in ("naive", "chunked"):
        y, final = gated_delta_rule(q, k, v, beta, log_decay, state, resets=resets, method=method)
        assert y[0, 4:7, 0, 0].isnan().all()
        assert y[0, :4].isfinite().all()
        assert y[0, 7:].isfinite().all()
        assert y[1:].isfinite().all()
        assert final.isfinite().all()


@pytest.mark.parametrize("method", [pytest.param("naive", marks=pytest.mark.slow), "chunked"])
def test_gradients_once_and_twice(method: str) -> None:
    leaves = [z.requires_grad_() for z in inputs(3, 2)]
    resets = torch.tensor([[False, True, False], [True, False, False]])
    assert torch.autograd.gradcheck(lambda *z: gated_delta_rule(*z, resets=resets, method=method), leaves)
    assert torch.autograd.gradgradcheck(lambda *z: gated_delta_rule(*z, resets=resets, method=method), leaves)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 32])
def test_inverses_of_unit_lower_triangular_matrices(size: int) -> None:
    lower = torch.randn(4, size, size, generator=torch.Generator().manual_seed(size), dtype=torch.float64).tril(-1)
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(inverse_unit_lower(lower), torch.linalg.inv(identity + lower), rtol=1e-9, atol=1e-9)
    ones = torch.ones(size, size).tril(-1)  # where keys repeat; the inverse is exact: 1, and -1 below the diagonal
    expected = torch.eye(size) - torch.diag(torch.ones(size - 1), -1)
    torch.testing.assert_close(inverse_unit_lower(ones), expected, rtol=0, atol=0)


def test_no_steps_return_the_state() -> None:
    *sequences, state = inputs(0)
    y, final = gated_delta_rule(*sequences, state)  # type: ignore[arg-type]
    assert y.shape == (B, 0, H, O)
    torch.testing.assert_close(final, state)


def test_wrong_arguments_are_named() -> None:
    q, k, v, beta, log_decay, state = inputs()
    for wrong, message in (
        (
            lambda: gated_delta_rule(q[0], k, v, beta, log_decay),
            r"q has shape \[7, 2, 4\], expected \[B, T, H, width\]",
        ),
        (
            lambda: gated_delta_rule(q, k, v, beta, log_decay[:, :1]),
            r"log_decay has shape \[3, 1, 2\], expected \[B, T",
        ),
        (lambda: gated_delta_rule(q, k.float(), v, beta, log_decay), "k is torch.float32, but q is torch.float64"),
        (lambda: gated_delta_rule(q, k, v, beta, log_decay, state[:1]), r"state has shape \[1, 2, 4, 5\], expected"),
        (lambda: gated_delta_rule(q, k, v, beta, log_decay, method="triton"), "method is 'triton', allowed: auto"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
