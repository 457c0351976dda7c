"""The readable truth of the mLSTM: one step after another, in plain PyTorch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MLSTMState(NamedTuple):
    """The state in units of exp(m). Zeros are a fresh episode."""

    memory: Tensor
    """C, [B, H, D, O], with row vectors: keys by values."""
    normaliser: Tensor
    """n, [B, H, D]."""
    log_scale: Tensor
    """m, [B, H]: the stabiliser."""


def normalised(numerator: Tensor, overlap: Tensor, log_scale: Tensor) -> Tensor:
    """h = numerator / max(|n . q|, 1), where all three are in units of exp(log_scale) [..., 1].

    1 is exp(-log_scale) in these units, at most e^80 here: beyond that, where h is as good as 0, it has no gradient.
    """
    return numerator / torch.maximum(overlap.abs(), (-log_scale).clamp(max=80.0).exp())


def mlstm_naive(
    q: Tensor, k: Tensor, v: Tensor, log_input: Tensor, log_forget: Tensor, state: MLSTMState, resets: Tensor | None
) -> tuple[Tensor, MLSTMState]:
    """Run over time. Shapes as in :func:`srwm_agents.ops.mlstm.mlstm`, which has checked them.

    Source: Beck et al., "xLSTM: Extended Long Short-Term Memory", NeurIPS 2024, arXiv:2405.04517, section 2.3, and for
    the stabiliser appendix A.
    """
    outputs = []
    memory, normaliser, log_scale = state
    for t in range(q.shape[1]):
        if resets is not None:
            reset = resets[:, t, None]
            memory = memory.masked_fill(reset[..., None, None], 0)
            normaliser = normaliser.masked_fill(reset[..., None], 0)
            log_scale = log_scale.masked_fill(reset, 0)
        q_t, k_t, v_t = (z[:, t, :, None, :] for z in (q, k, v))  # [B, H, 1, width]
        kept = log_forget[:, t] + log_scale
        log_scale = torch.maximum(kept, log_input[:, t])
        forget, admit = ((z - log_scale).exp()[..., None] for z in (kept, log_input[:, t]))
        memory = forget[..., None] * memory + k_t.mT @ (admit[..., None] * v_t)
        normaliser = forget * normaliser + admit * k[:, t]
        overlap = (normaliser * q[:, t]).sum(-1, keepdim=True)
        outputs.append(normalised((q_t @ memory).squeeze(-2), overlap, log_scale[..., None]))
    return torch.stack(outputs, dim=1) if outputs else v, MLSTMState(memory, normaliser, log_scale)
