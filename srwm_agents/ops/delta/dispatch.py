"""The public delta-rule op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import BackendUnavailableError, check_alike, check_backend, check_resets, check_shape
from srwm_agents.ops.delta.naive import delta_rule_naive
from srwm_agents.ops.triton_support import check_precision, state_dtype, unsupported_reason

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
        state: [B, H, D, O] fast matrices; None starts fresh episodes (zeros). Of q's dtype, but float32 beside
            bfloat16; everything is computed in the state's dtype.
        resets: bool [B, T]; True zeroes the state *before* step t. None: no resets.
        backend: "auto" | "naive" | "triton". "auto" picks the fastest that can run; an explicit one never falls back.

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
    if state is not None:
        check_shape("state", state, (batch, heads, dim, out), "[B, H, D, O]")
        check_precision("state", state, "q", q)

    if backend == "triton" or (backend == "auto" and q.is_cuda):
        reason = _why_not_triton(q, v)
        if reason is not None and backend == "triton":
            raise BackendUnavailableError(f"backend 'triton' cannot run here: {reason}")
        if reason is None and steps > 0:  # no step, no kernel
            from srwm_agents.ops.delta.autograd import delta_rule_triton

            return delta_rule_triton(q, k, v, beta, state, resets)
    # Narrow inputs are computed in the state's float32, as the kernels do.
    dtype = state_dtype(q)
    if state is None:
        state = q.new_zeros(batch, heads, dim, out, dtype=dtype)
    y, state = delta_rule_naive(q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype), state, resets)
    return y.to(q.dtype), state


def _why_not_triton(q: Tensor, v: Tensor) -> str | None:
    try:
        from srwm_agents.ops.delta.autograd import INTERPRETED
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return unsupported_reason(q, {"D": q.shape[-1], "O": v.shape[-1]}, INTERPRETED)
