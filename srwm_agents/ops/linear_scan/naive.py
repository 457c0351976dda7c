"""The readable truth of the linear recurrence: one step after another, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_scan_naive(a: Tensor, b: Tensor, state: Tensor, resets: Tensor | None) -> Tensor:
    """All states h [B, T, ...]. Shapes as in :func:`srwm_agents.ops.linear_scan`, which has checked them."""
    states = []
    for t in range(b.shape[1]):
        if resets is not None:
            state = state.masked_fill(unsqueezed(resets[:, t], state), 0)
        state = a[:, t] * state + b[:, t]
        states.append(state)
    return torch.stack(states, dim=1) if states else b


def unsqueezed(flags: Tensor, like: Tensor) -> Tensor:
    """``flags`` with dimensions of size 1 at the end, as many as ``like`` has more."""
    return flags.reshape(*flags.shape, *[1] * (like.dim() - flags.dim()))
