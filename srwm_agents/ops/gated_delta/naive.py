"""The readable truth of the gated delta rule: one step after another, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_delta_naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run the rule over time. Shapes as in :func:`srwm_agents.ops.gated_delta_rule`, which has checked them.

    Source: Yang, Kautz & Hatamizadeh, "Gated Delta Networks", ICLR 2025, arXiv:2412.06464, equation 10.
    """
    outputs = []
    for t in range(q.shape[1]):
        if resets is not None:
            state = state.masked_fill(resets[:, t, None, None, None], 0)
        q_t, k_t, v_t = (z[:, t, :, None, :] for z in (q, k, v))  # [B, H, 1, width]
        state = log_decay[:, t, :, None, None].exp() * state
        state = state + k_t.mT @ (beta[:, t, :, None, None] * (v_t - k_t @ state))
        outputs.append((q_t @ state).squeeze(-2))  # read after the write, as published
    return torch.stack(outputs, dim=1) if outputs else v.new_zeros(v.shape), state
