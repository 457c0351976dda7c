"""The linear recurrence with a gradient of its own, which is a linear recurrence too, backwards in time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srwm_agents.ops.linear_scan.naive import unsqueezed

CHUNK = 64
"""Steps in one parallel scan: products of so many factors, of 2 at most in SHM, are far from float32's largest."""


def scan_steps(a: Tensor, b: Tensor, state: Tensor, resets: Tensor | None) -> Tensor:
    """All states, one step after another: the least arithmetic, T kernels."""
    states = []
    for t in range(b.shape[1]):
        if resets is not None:
            # Filled, not multiplied: NaN times zero is NaN.
            state = state.masked_fill(unsqueezed(resets[:, t], state), 0)
        state = torch.addcmul(b[:, t], a[:, t], state)
        states.append(state)
    return torch.stack(states, dim=1)


def scan_doubling(a: Tensor, b: Tensor, state: Tensor, resets: Tensor | None) -> Tensor:
    """All states by a parallel scan (Hillis & Steele, 1986): about log2(T) kernels, each over all steps.

    After the pass with distance d, ``b[t]`` is what the last 2d steps have left and ``a[t]`` the product of their
    factors; ``cut[t]`` says that one of them was a reset, so that nothing older reaches t.
    """
    if resets is None:
        resets = torch.zeros(b.shape[:2], dtype=torch.bool, device=b.device)
    parts = []
    for a_part, b_part, cut in zip(a.split(CHUNK, 1), b.split(CHUNK, 1), resets.split(CHUNK, 1), strict=True):
        parts.append(_doubling(a_part, b_part, state, unsqueezed(cut, b)))
        state = parts[-1][:, -1]
    return torch.cat(parts, dim=1)


def _doubling(a: Tensor, b: Tensor, state: Tensor, cut: Tensor) -> Tensor:
    first = torch.addcmul(b[:, 0], a[:, 0], state.masked_fill(cut[:, 0], 0))
    b = torch.cat([first[:, None], b[:, 1:]], dim=1)
    distance = 1
    while distance < b.shape[1]:
        earlier = b[:, :-distance].masked_fill(cut[:, distance:], 0)
        b = torch.cat([b[:, :distance], torch.addcmul(b[:, distance:], a[:, distance:], earlier)], dim=1)
        product = a[:, distance:] * a[:, :-distance].masked_fill(cut[:, distance:], 0)
        a = torch.cat([a[:, :distance], product], dim=1)
        cut = torch.cat([cut[:, :distance], cut[:, distance:] | cut[:, :-distance]], dim=1)
        distance *= 2
    return b


class LinearScan(torch.autograd.Function):
    """States h [B, T, ...] of a, b [B, T, ...], state [B, ...], resets [B, T] or None; T > 0.

    With g the gradient of h[t] through everything after it: g[t] = dh[t] + a[t+1] g[t+1], unless t + 1 is a reset.
    Then da[t] = g[t] h[t-1] and db[t] = g[t].
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, state: Tensor, resets: Tensor | None, doubling: bool) -> Tensor:
        return (scan_doubling if doubling else scan_steps)(a, b, state, resets)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, state, resets, ctx.doubling = inputs
        ctx.save_for_backward(a, state, resets, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, state, resets, states = ctx.saved_tensors
        # Backwards in time, each step's factor and reset are those of the step after it; before the first, nothing.
        factors = torch.cat([torch.zeros_like(a[:, :1]), a[:, 1:].flip(1)], dim=1)
        ends = None if resets is None else torch.cat([resets[:, :1], resets[:, 1:].flip(1)], dim=1)
        none = torch.zeros_like(state)
        g = LinearScan.apply(factors, grads[0].flip(1), none, ends, ctx.doubling).flip(1)
        before = torch.cat([state[:, None], states[:, :-1]], dim=1)
        dstate = a[:, 0] * g[:, 0]
        if resets is not None:
            before = before.masked_fill(unsqueezed(resets, before), 0)
            dstate = dstate.masked_fill(unsqueezed(resets[:, 0], dstate), 0)
        return g * before, g, dstate, None, None
