"""Stable Hadamard Memory's layer: a matrix whose entries are each scaled by a factor of their own at each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.layers.memory import HeadsLayer, LayerState
from srwm_agents.ops.linear_scan import linear_scan


class SHMLayer(HeadsLayer):
    """M[t] = M[t-1] * C[t] + eta[t] v[t] k[t]^T, y[t] = M[t] q[t], for each of H heads; * is elementwise.

    The calibration C[t] = 1 + tanh(theta w[t]^T) is in (0, 2), with w = W_c x and a learned vector theta. Keys and
    queries are relu(W x) divided by their sum, eta = sigmoid(W_eta x), v = W_v x.

    Source: Le et al., "Stable Hadamard Memory", ICLR 2025, arXiv:2410.10132, section 3. Deviations: the
    paper draws theta at random at each step, one of L = 128 learned vectors; here it is always the same one. So it is
    in the authors' code (the index is a random number in [0, 1) without its fraction: 0), and a random one would let a
    learner compute other probabilities than those acted on. The paper has one head, ``num_heads=1`` here. Products of
    factors up to 2 have no bound: an entry that is always amplified grows until it is not finite.
    """

    state_names = ("W",)

    def __init__(self, hidden_size: int, num_heads: int, *, input_norm: bool = False, dropout: float = 0.0) -> None:
        """Settings as :class:`srwm_agents.layers.memory.HeadsLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        dim = self.head_size
        self.slow = nn.Linear(hidden_size, num_heads * (4 * dim + 1), bias=False)
        bound = (6 / (128 + dim)) ** 0.5  # Xavier's for the paper's table of 128 vectors
        self.theta = nn.Parameter(torch.empty(num_heads, dim).uniform_(-bound, bound))
        self.state_shapes = ((num_heads, dim, dim),)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        dim, dtype = self.head_size, state[0].dtype
        programmed = self.slow(h).unflatten(-1, (self.num_heads, -1)).to(dtype)
        q, k, v, w, eta = programmed.split((dim, dim, dim, dim, 1), dim=-1)
        q, k = shares(q), shares(k)
        calibration = 1 + torch.tanh(self.theta.to(dtype)[..., None] * w[..., None, :])
        update = (eta.sigmoid() * v)[..., None] * k[..., None, :]
        states, final = linear_scan(calibration, update, state[0], resets=resets)
        return (states * q[..., None, :]).sum(-1).to(h.dtype), (final,)


def shares(x: Tensor) -> Tensor:
    """relu(x) divided by its sum over the last dimension; zeros where nothing is positive."""
    x = x.relu()
    return x / (1e-5 + x.sum(-1, keepdim=True))
