"""Fake SR: the SRWM layer with its self-modification taken out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.layers.memory import HeadsLayer, LayerState


class FakeSRLayer(HeadsLayer):
    """A static W_y in the place of the self-referential matrix: same shape of computation, no state, no memory.

    Source: Irie et al., ICML 2022, section 4 ("Fake SR").
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        *,
        input_softmax: bool = True,
        input_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """As :class:`srwm_agents.layers.srwm.SRWMLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        self.input_softmax = input_softmax
        self.w_y = nn.Parameter(torch.randn(num_heads, self.head_size, self.head_size) * self.head_size**-0.5)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        x = self.heads(h)
        if self.input_softmax:
            x = x.softmax(-1)
        return torch.einsum("bthd,hdo->btho", x, self.w_y), state
