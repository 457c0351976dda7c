"""The public SRWM op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import BackendUnavailableError, check_alike, check_backend, check_resets, check_shape
from srwm_agents.ops.srwm.naive import srwm_naive
from srwm_agents.ops.srwm.types import SRWMState, SRWMWeights, zero_state

BACKENDS = ("auto", "naive", "triton")


def srwm(
    x: Tensor,
    weights: SRWMWeights,
    state: SRWMState | None = None,
    *,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, SRWMState]:
    """Run a self-referential weight matrix over a batch of sequences.

    At step t, for each head, with ``W`` as step t-1 left it (row vectors):

        y = x W_y    q = softmax(x W_q)    k = softmax(x W_k)    b = sigmoid(x W_b)
        for each block c in (y, q, k, beta):    W_c <- W_c + k^T b[c] (q W_c - k W_c)

    Source: Irie et al., ICML 2022, eqs. (5)-(8). Deviation: the state is carried as the *shift* from the slow
    weights, so that zeros mean a fresh episode; the mathematics is the same. Differentiable in ``x``, ``weights``
    and ``state``, and through the final state.

    Args:
        x: [B, T, H, D], the heads' inputs, as they are (a softmax over D, if wanted, is the layer's business).
        weights: slow weights, [H, D, O], [H, D, D], [H, D, D], [H, D, 4].
        state: shift from the slow weights, each block with a leading B; None starts fresh episodes.
        resets: bool [B, T]; True zeroes the state *before* step t. None: no resets.
        backend: "auto" | "naive" | "triton". "auto" picks the fastest that can run; an explicit one never falls back.

    Returns:
        y [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    state = _checked(x, weights, state, resets, backend)
    if backend == "triton":
        raise BackendUnavailableError("backend 'triton' has no SRWM kernel yet; use 'auto' or 'naive'")
    return srwm_naive(x, weights, state, resets)


def _checked(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, backend: str
) -> SRWMState:
    check_backend(backend, BACKENDS)
    if x.dim() != 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected [B, T, H, D]")
    batch, steps, heads, dim = x.shape
    if weights.y.dim() != 3:
        raise ValueError(f"weights.y has shape {list(weights.y.shape)}, expected [H, D, O]")
    out = weights.y.shape[-1]
    for name, block, width, dims in zip(
        SRWMWeights._fields, weights, (out, dim, dim, 4), ("O", "D", "D", "4"), strict=True
    ):
        check_shape(f"weights.{name}", block, (heads, dim, width), f"[H, D, {dims}]")
        check_alike(f"weights.{name}", block, "x", x)
    check_resets(resets, batch, steps, x.device)
    if state is None:
        return zero_state(weights, batch)
    for name, shift, block in zip(SRWMState._fields, state, weights, strict=True):
        check_shape(f"state.{name}", shift, (batch, *block.shape), f"[B, *weights.{name}.shape]")
        check_alike(f"state.{name}", shift, "x", x)
    return state
