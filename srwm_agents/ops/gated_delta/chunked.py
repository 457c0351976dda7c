"""The gated delta rule in chunks of time: matrix products over a chunk's steps in place of one step after another.

With row vectors, c[t] the decay from the chunk's beginning up to step t, c[t, j] that after j up to t, and S the matrix
before the chunk, the rule S <- a S + k^T u, u = b (v - k a S), unrolls to

    u[t] = b[t] (v[t] - c[t] k[t] S - sum over j < t of c[t, j] (k[t] . k[j]) u[j])

a unit lower triangular system for the rows u[t]. Outputs and the matrix after the chunk are sums of them with decays
that are at most 1: nothing is divided by a decay, and nothing overflows.

Source: Yang, Kautz & Hatamizadeh, 2024, arXiv:2412.06464, section 3.3 (the extended WY representation).
"""

from __future__ import annotations

import torch
from torch import Tensor

from srwm_agents.ops.chunks import finite_part, in_chunks, inverse_unit_lower, poison, reach


def gated_delta_chunked(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Shapes as in :func:`srwm_agents.ops.gated_delta.gated_delta_rule`, which has checked them; T > 0."""
    return in_chunks(_chunk, (q, k, v, beta, log_decay), state, resets)


def _chunk(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, state: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """q, k [B, H, C, D], v [B, H, C, O], beta, log_decay [B, H, C], state [B, H, D, O], resets [B, C]."""
    (q, k, v, beta, log_decay), (state,), broken, broken_state = finite_part((q, k, v, beta, log_decay), (state,))
    now = reach(log_decay, resets)
    nan = poison(broken, broken_state, now)[..., None]
    between = torch.where(now.seen, now.log_between.exp(), 0)
    since = torch.where(now.carried, now.log_since.exp(), 0)[..., None]
    lower = (beta[..., None] * between * (k @ k.mT)).tril(-1)
    u = inverse_unit_lower(lower) @ (beta[..., None] * (v - since * (k @ state)))
    y = since * (q @ state) + (between * (q @ k.mT)) @ u
    written = k * between[..., -1, :, None]
    return y + nan, since[..., -1:, :] * state + written.mT @ u + nan[..., -1:, :]
