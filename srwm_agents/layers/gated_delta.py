"""Gated DeltaNet's layer: a slow net programs a fast weight matrix by the delta rule, and how fast it is forgotten."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srwm_agents.layers.memory import HeadsLayer, LayerState
from srwm_agents.ops.gated_delta import gated_delta_rule


class GatedDeltaLayer(HeadsLayer):
    """H fast weight matrices, each with a decay a[t] and a learning rate beta[t] that depend on the input.

    q = unit(silu(W_q x)), k = unit(silu(W_k x)), v = silu(W_v x), beta = sigmoid(W_b x) and
    a = exp(-A softplus(W_a x + bias)) program the matrix; what is read goes through an RMS norm of each head and the
    gate silu(W_g x), then the output projection.

    Source: Yang, Kautz & Hatamizadeh, ICLR 2025, arXiv:2412.06464, section 3.4 and figure 1; the decay and its initial
    values (A uniform in [1, 16], softplus(bias) log-uniform in [.001, .1]) are Mamba2's, as in the authors' code.
    Deviations: no short convolutions over time before q, k and v, which no other layer here has either; values as wide
    as keys.
    """

    state_names = ("W",)

    def __init__(self, hidden_size: int, num_heads: int, *, input_norm: bool = False, dropout: float = 0.0) -> None:
        """Settings as :class:`srwm_agents.layers.memory.HeadsLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        dim = self.head_size
        self.slow = nn.Linear(hidden_size, num_heads * (4 * dim + 2), bias=False)
        self.log_rate = nn.Parameter(torch.empty(num_heads).uniform_(1, 16).log())
        step = torch.empty(num_heads).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus's inverse
        self.read_scale = nn.Parameter(torch.ones(dim))
        self.state_shapes = ((num_heads, dim, dim),)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        dim, dtype = self.head_size, state[0].dtype
        programmed = self.slow(h).unflatten(-1, (self.num_heads, -1)).to(dtype)
        q, k, v, gate, beta, step = programmed.split((dim, dim, dim, dim, 1, 1), dim=-1)
        q, k = F.normalize(F.silu(q), dim=-1), F.normalize(F.silu(k), dim=-1)
        log_decay = -self.log_rate.to(dtype).exp() * F.softplus(step.squeeze(-1) + self.step_bias.to(dtype))
        y, fast = gated_delta_rule(q, k, F.silu(v), beta.squeeze(-1).sigmoid(), log_decay, state[0], resets=resets)
        y = F.rms_norm(y, (dim,), eps=1e-5) * self.read_scale.to(dtype) * F.silu(gate)
        return y.to(h.dtype), (fast,)
