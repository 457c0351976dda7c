"""The mLSTM's layer: xLSTM's matrix memory with exponential input gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srwm_agents.layers.memory import HeadsLayer, LayerState
from srwm_agents.ops.mlstm import MLSTMState, mlstm


class MLSTMLayer(HeadsLayer):
    """H matrix memories with a normaliser and a stabiliser each.

    q, v and sqrt(D) k are linear in the input, as are the logarithm of the input gate and the forget gate before its
    sigmoid. What is read goes through a layer norm of each head and the output gate sigmoid(W_o x), then
    the output projection.

    Source: Beck et al., NeurIPS 2024, arXiv:2405.04517, section 2.3; gates begin as in the authors' code:
    weights of 0, biases from 3 to 6 over the heads for forgetting, N(0, .1) for input. Deviations: no up-projection,
    convolution or skip connection around the memory (their block, figure 11); the block is the common one of all layers
    here.
    """

    state_names = ("W", "normaliser", "stabiliser")

    def __init__(self, hidden_size: int, num_heads: int, *, input_norm: bool = False, dropout: float = 0.0) -> None:
        """Settings as :class:`srwm_agents.layers.memory.HeadsLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        dim = self.head_size
        self.slow = nn.Linear(hidden_size, num_heads * 4 * dim)
        self.gates = nn.Linear(hidden_size, 2 * num_heads)  # [input, forget]
        self.read_scale = nn.Parameter(torch.ones(num_heads, dim))
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias[:num_heads].normal_(0, 0.1)
            self.gates.bias[num_heads:] = torch.linspace(3, 6, num_heads)
        self.state_shapes = ((num_heads, dim, dim), (num_heads, dim), (num_heads,))

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        dim, dtype = self.head_size, state[0].dtype
        q, k, v, out = self.slow(h).unflatten(-1, (self.num_heads, -1)).to(dtype).split(dim, dim=-1)
        log_input, forget = self.gates(h).to(dtype).chunk(2, dim=-1)
        y, after = mlstm(q, k * dim**-0.5, v, log_input, F.logsigmoid(forget), MLSTMState(*state), resets=resets)
        y = F.layer_norm(y, (dim,)) * self.read_scale.to(dtype) * out.sigmoid()
        return y.to(h.dtype), tuple(after)
