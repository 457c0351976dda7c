"""The public delta-rule op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import BackendUnavailableError, check_alike, check_backend, check_resets, check_shape
from srwm_agents.ops.delta.naive import delta_rule_naive

BACKENDS = ("auto", "naive", "triton")


def delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run a fast weight matrix under the delta rule over a batch of sequences.

    For each head, with row vectors and ``S`` the fast matrix:

        S <- S + k^T beta (v - k S)        y = q S

    Source: Schlag et al., ICML 2021, section 4.2. ``y`` is read *after* the write. Keys and queries are used as
    they come: normalising them (softmax, sum or L2 norm) is the layer's business. Differentiable in every argument
    and through the final state.

    Args:
        q: [B, T, H, D] queries.
        k: [B, T, H, D] keys.
        v: [B, T, H, O] values.
        beta: [B, T, H] learning rates, usually in (0, 1).
        state: [B, H, D, O] fast matrices; None starts fresh episodes (zeros).
        resets: bool [B, T]; True zeroes the state *before* step t. None: no resets.
        backend: "auto" | "naive" | "triton"; an explicit one never falls back.

    Returns:
        y [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    check_backend(backend, BACKENDS)
    if q.dim() != 4:
        raise ValueError(f"q has shape {list(q.shape)}, expected [B, T, H, D]")
    if v.dim() != 4:
        raise ValueError(f"v has shape {list(v.shape)}, expected [B, T, H, O]")
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    check_shape("k", k, q.shape, "[B, T, H, D]")
    check_shape("v", v, (batch, steps, heads, out), "[B, T, H, O]")
    check_shape("beta", beta, (batch, steps, heads), "[B, T, H]")
    for name, tensor in (("k", k), ("v", v), ("beta", beta)):
        check_alike(name, tensor, "q", q)
    check_resets(resets, batch, steps, q.device)
    if state is None:
        state = q.new_zeros(batch, heads, dim, out)
    check_shape("state", state, (batch, heads, dim, out), "[B, H, D, O]")
    check_alike("state", state, "q", q)
    if backend == "triton":
        raise BackendUnavailableError("backend 'triton' has no delta-rule kernel yet; use 'auto' or 'naive'")
    return delta_rule_naive(q, k, v, beta, state, resets)
