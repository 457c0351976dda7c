"""The public op of the linear recurrence: checks its arguments, picks a method, calls it."""

from __future__ import annotations

from torch import Tensor

from srwm_agents.ops.checks import check_alike, check_shape, checked_resets
from srwm_agents.ops.linear_scan.autograd import LinearScan
from srwm_agents.ops.linear_scan.naive import linear_scan_naive

METHODS = ("auto", "naive", "steps", "doubling")


def linear_scan(
    a: Tensor, b: Tensor, state: Tensor, *, resets: Tensor | None = None, method: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Run h[t] = a[t] h[t-1] + b[t], elementwise, over a batch of sequences.

    Differentiable in a, b and state, any number of times, and through the final state. The parallel form takes products
    of factors but never divides by one, so factors of 0 and of any size up to 1 are exact; with factors up to f it is
    safe in float32 while f**64 is. Works under ``torch.vmap`` and ``torch.func.grad``; no forward mode but "naive".

    Args:
        a: [B, T, ...] factors.
        b: [B, T, ...] inputs, of a's shape.
        state: [B, ...], h before the first step; zeros for fresh episodes.
        resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. None: no resets. Of numbers, any
            but 0 is True.
        method: "naive" (the reference), "steps" (T kernels), "doubling" (a parallel scan of about log2(T) kernels, with
            more arithmetic), or "auto": "doubling" on a GPU, where launches cost most, else "steps".

    Returns:
        h [B, T, ...] after each step, and after the last one [B, ...]. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, allowed: {', '.join(METHODS)}")
    check_shape("b", b, a.shape, "a's")
    check_shape("state", state, (a.shape[0], *a.shape[2:]), "[B, ...]")
    check_alike("b", b, "a", a)
    check_alike("state", state, "a", a)
    resets = checked_resets(resets, a)
    if a.shape[1] == 0:
        return b, state
    if a.shape[1] == 1 or method == "naive":
        states = linear_scan_naive(a, b, state, resets)
    else:
        states = LinearScan.apply(a, b, state, resets, method == "doubling" or (method == "auto" and a.is_cuda))
    return states, states[:, -1]
