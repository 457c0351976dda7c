"""The public op of the mLSTM: checks its arguments, picks a method, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import check_alike, check_shape, checked_resets
from srwm_agents.ops.mlstm.chunked import mlstm_chunked
from srwm_agents.ops.mlstm.naive import MLSTMState, mlstm_naive
from srwm_agents.ops.triton_support import check_precision, state_dtype, without_autocast

METHODS = ("auto", "naive", "chunked")


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_input: Tensor,
    log_forget: Tensor,
    state: MLSTMState | None = None,
    *,
    resets: Tensor | None = None,
    method: str = "auto",
) -> tuple[Tensor, MLSTMState]:
    """Run xLSTM's matrix memory over a batch of sequences.

    For each head, with row vectors, i = exp(log_input), f = exp(log_forget), and C, n scaled by exp(-m) so that nothing
    overflows:

        C <- f C + i k^T v        n <- f n + i k        h = q C / max(|n . q|, 1)

    Source: Beck et al., NeurIPS 2024, arXiv:2405.04517, section 2.3 and appendix A. The output gate and the
    factor 1 / sqrt(D) on keys are the layer's business. Deviation: the 1 in the denominator counts as at most e^80 in
    units of exp(m), where h is as good as 0. Differentiable in every argument, any number of times, and through the
    final state; in plain PyTorch, so that all of ``torch.func`` works. Inputs that are not finite make outputs and
    state NaN until the next reset.

    Args:
        q: [B, T, H, D] queries.
        k: [B, T, H, D] keys.
        v: [B, T, H, O] values.
        log_input: [B, T, H] natural logarithms of the input gates, of any size.
        log_forget: [B, T, H] natural logarithms of the forget gates, usually at most 0.
        state: None starts fresh episodes (zeros). Of q's dtype, but float32 beside bfloat16; everything is computed in
            the state's dtype.
        resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. None: no resets. Of numbers, any
            but 0 is True.
        method: "naive" (the reference, step by step), "chunked" (matrix products of 16 steps at a time, 32 on a GPU),
            or "auto": "naive" for a single step, else "chunked".

    Returns:
        h [B, T, H, O] and the state after step T-1. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, allowed: {', '.join(METHODS)}")
    for name, tensor in (("q", q), ("v", v)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected [B, T, H, width]")
    batch, steps, heads, dim = q.shape
    shapes = {
        "memory": ((batch, heads, dim, v.shape[-1]), "[B, H, D, O]"),
        "normaliser": ((batch, heads, dim), "[B, H, D]"),
        "log_scale": ((batch, heads), "[B, H]"),
    }
    check_shape("k", k, q.shape, "[B, T, H, D]")
    check_shape("v", v, (batch, steps, heads, v.shape[-1]), "[B, T, H, O]")
    check_shape("log_input", log_input, (batch, steps, heads), "[B, T, H]")
    check_shape("log_forget", log_forget, (batch, steps, heads), "[B, T, H]")
    for name, tensor in (("k", k), ("v", v), ("log_input", log_input), ("log_forget", log_forget)):
        check_alike(name, tensor, "q", q)
    dtype = state_dtype(q)
    if state is None:
        state = MLSTMState(*(q.new_zeros(shape, dtype=dtype) for shape, _ in shapes.values()))
    for (name, (shape, dims)), part in zip(shapes.items(), state, strict=True):
        check_shape(f"state.{name}", part, shape, dims)
        check_precision(f"state.{name}", part, "q", q)
    resets = checked_resets(resets, q)
    run = mlstm_naive if method == "naive" or (method == "auto" and steps == 1) or steps == 0 else mlstm_chunked
    with without_autocast(q):
        y, final = run(q.to(dtype), k.to(dtype), v.to(dtype), log_input.to(dtype), log_forget.to(dtype), state, resets)
    return y.to(q.dtype), final
