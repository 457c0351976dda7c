"""The public op of the gated delta rule: checks its arguments, picks a method, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import check_alike, check_shape, checked_resets
from srwm_agents.ops.gated_delta.chunked import gated_delta_chunked
from srwm_agents.ops.gated_delta.naive import gated_delta_naive
from srwm_agents.ops.triton_support import check_precision, state_dtype, without_autocast

METHODS = ("auto", "naive", "chunked")


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    log_decay: Tensor,
    state: Tensor | None = None,
    *,
    resets: Tensor | None = None,
    method: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Run a fast weight matrix under the gated delta rule over a batch of sequences.

    For each head, with row vectors, ``S`` the fast matrix and ``a = exp(log_decay)``:

        S <- a S        S <- S + k^T beta (v - k S)        y = q S

    Source: Yang, Kautz & Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", ICLR 2025,
    arXiv:2412.06464, equation 10: S <- S (a (I - beta k k^T)) + beta v k^T there, with column vectors. ``a = 1`` is
    :func:`srwm_agents.ops.delta_rule`. Keys and queries are used as they come; keys of length 1 with beta in [0, 1]
    keep every eigenvalue of an update in [0, 1]. Differentiable in every argument, any number of times, and through the
    final state; in plain PyTorch, so that all of ``torch.func`` works. Inputs that are not finite make outputs and
    state NaN until the next reset.

    Args:
        q: [B, T, H, D] queries.
        k: [B, T, H, D] keys.
        v: [B, T, H, O] values.
        beta: [B, T, H] learning rates, usually in (0, 1).
        log_decay: [B, T, H] natural logarithms of the factors on the matrix, at most 0.
        state: [B, H, D, O] fast matrices; None starts fresh episodes (zeros). Of q's dtype, but float32 beside
            bfloat16; everything is computed in the state's dtype.
        resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. None: no resets. Of numbers, any
            but 0 is True.
        method: "naive" (the reference, step by step), "chunked" (matrix products of 16 steps at a time, 32 on a GPU),
            or "auto": "naive" for a single step, else "chunked".

    Returns:
        y [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, allowed: {', '.join(METHODS)}")
    for name, tensor in (("q", q), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected [B, T, H, width]")
    batch, steps, heads, dim = q.shape
    check_shape("k", k, q.shape, "[B, T, H, D]")
    check_shape("v", v, (batch, steps, heads, v.shape[-1]), "[B, T, H, O]")
    check_shape("beta", beta, (batch, steps, heads), "[B, T, H]")
    check_shape("log_decay", log_decay, (batch, steps, heads), "[B, T, H]")
    for name, tensor in (("k", k), ("v", v), ("beta", beta), ("log_decay", log_decay)):
        check_alike(name, tensor, "q", q)
    dtype = state_dtype(q)
    if state is None:
        state = q.new_zeros(batch, heads, dim, v.shape[-1], dtype=dtype)
    check_shape("state", state, (batch, heads, dim, v.shape[-1]), "[B, H, D, O]")
    check_precision("state", state, "q", q)
    resets = checked_resets(resets, q)
    run = (
        gated_delta_naive
        if method == "naive" or (method == "auto" and steps == 1) or steps == 0
        else gated_delta_chunked
    )
    with without_autocast(q):
        y, state = run(q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype), log_decay.to(dtype), state, resets)
    return y.to(q.dtype), state
