"""The public delta-rule op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import MEMORY_BACKENDS, check_alike, check_backend, check_shape, checked_resets
from srwm_agents.ops.compiled.library import use_compiled
from srwm_agents.ops.delta.naive import delta_rule_naive
from srwm_agents.ops.triton_support import check_precision, state_dtype, use_kernels, without_autocast


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
    and through the final state. Works under ``torch.vmap`` and the transforms of ``torch.func``; second derivatives and
    forward mode with "naive" only.

    Args:
        q: [B, T, H, D] queries.
        k: [B, T, H, D] keys.
        v: [B, T, H, O] values.
        beta: [B, T, H] learning rates, usually in (0, 1).
        state: [B, H, D, O] fast matrices; None starts fresh episodes (zeros). Of q's dtype, but float32 beside
            bfloat16; everything is computed in the state's dtype.
        resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. None: no resets. Of numbers, any
            but 0 is True.
        backend: "auto" | "naive" | "triton" | "cpu" (compiled C). "auto" picks the fastest that can run; an explicit
            one never falls back.

    Returns:
        y [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    _check(q, k, v, beta, state, backend)
    resets = checked_resets(resets, q)
    if use_compiled(backend, q) and q.shape[1] > 0:  # no step, no kernel
        from srwm_agents.ops.delta.cpu import delta_rule_cpu

        return delta_rule_cpu(q, k, v, beta, state, resets)
    widths = {"D": q.shape[-1], "O": v.shape[-1]}
    if use_kernels(backend, q, widths=widths) and q.shape[1] > 0:
        from srwm_agents.ops.delta.autograd import delta_rule_triton

        return delta_rule_triton(q, k, v, beta, state, resets)
    return _naive(q, k, v, beta, state, resets)


def _check(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, backend: str) -> None:
    check_backend(backend, MEMORY_BACKENDS)
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
    if state is not None:
        check_shape("state", state, (batch, heads, dim, out), "[B, H, D, O]")
        check_precision("state", state, "q", q)


def _naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """In the state's dtype, as the kernels do: float32 for narrow inputs, autocast or not."""
    dtype = state_dtype(q)
    if state is None:
        batch, _, heads, dim = q.shape
        state = q.new_zeros(batch, heads, dim, v.shape[-1], dtype=dtype)
    with without_autocast(q):
        y, state = delta_rule_naive(q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype), state, resets)
    return y.to(q.dtype), state
