"""The readable truth of the delta rule: one step after another, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor


def delta_rule_naive(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run the delta rule over time. Shapes as in :func:`srwm_agents.ops.delta.delta_rule`, which has checked them.

    Source: Schlag, Irie & Schmidhuber, "Linear Transformers Are Secretly Fast Weight Programmers", ICML 2021,
    section 4.2; after Widrow & Hoff, 1960.
    """
    outputs = []
    for t in range(q.shape[1]):
        if resets is not None:
            state = state.masked_fill(resets[:, t, None, None, None], 0)
        q_t, k_t, v_t = (z[:, t, :, None, :] for z in (q, k, v))  # [B, H, 1, width]
        state = state + k_t.mT @ (beta[:, t, :, None, None] * (v_t - k_t @ state))
        outputs.append((q_t @ state).squeeze(-2))  # read after the write, as published
    return torch.stack(outputs, dim=1) if outputs else v.new_zeros(v.shape), state
