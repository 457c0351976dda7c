"""The mLSTM in chunks of time: within a chunk every step attends to those before it, weighted by the gates.

Source: Beck et al., 2024, arXiv:2405.04517, appendix A (the parallel form), here with a state before the chunk, which
is one more candidate for the stabiliser.
"""

from __future__ import annotations

import torch
from torch import Tensor

from srwm_agents.ops.chunks import finite_part, in_chunks, poison, reach
from srwm_agents.ops.mlstm.naive import MLSTMState, normalised


def mlstm_chunked(
    q: Tensor, k: Tensor, v: Tensor, log_input: Tensor, log_forget: Tensor, state: MLSTMState, resets: Tensor | None
) -> tuple[Tensor, MLSTMState]:
    """Shapes as in :func:`srwm_agents.ops.mlstm.mlstm`, which has checked them; T > 0."""
    return in_chunks(_chunk, (q, k, v, log_input, log_forget), state, resets)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, log_input: Tensor, log_forget: Tensor, state: MLSTMState, resets: Tensor | None
) -> tuple[Tensor, MLSTMState]:
    """q, k [B, H, C, D], v [B, H, C, O], log_input, log_forget [B, H, C], resets [B, C]."""
    sequences, before, broken, broken_state = finite_part((q, k, v, log_input, log_forget), state)
    q, k, v, log_input, log_forget = sequences
    memory, normaliser, scale_before = before
    now = reach(log_forget, resets)
    nan = poison(broken, broken_state, now)
    # The logarithm of each step's weight at each later one, and of the state's before the chunk. A reset begins
    # a state whose stabiliser is 0, as a fresh one's is.
    log_weights = torch.where(now.seen, now.log_between + log_input[..., None, :], -torch.inf)
    log_state = now.log_since + torch.where(now.carried, scale_before[..., None], 0)
    log_scale = torch.maximum(log_weights.amax(-1), log_state)
    weights = (log_weights - log_scale[..., None]).exp()
    state_weight = torch.where(now.carried, (log_state - log_scale).exp(), 0)[..., None]
    scores = weights * (q @ k.mT)
    overlap = scores.sum(-1, keepdim=True) + state_weight * (q @ normaliser[..., None])
    y = normalised(scores @ v + state_weight * (q @ memory), overlap, log_scale[..., None])
    written = weights[..., -1, :, None] * k
    state_weight, nan_after = state_weight[..., -1, :], nan[..., -1:]
    return y + nan[..., None], MLSTMState(
        state_weight[..., None] * memory + written.mT @ v + nan_after[..., None],
        state_weight * normaliser + written.sum(-2) + nan_after,
        log_scale[..., -1] + nan[..., -1],
    )
