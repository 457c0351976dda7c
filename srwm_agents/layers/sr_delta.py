"""SR-Delta: a self-referential weight matrix that programs a fast weight matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srwm_agents.layers.delta import fast_weights, programme
from srwm_agents.layers.memory import LayerState
from srwm_agents.layers.srwm import SRWMLayer


class SRDeltaLayer(SRWMLayer):
    """DeltaNet whose slow net is an SRWM: each head's output is the q, k, v, beta of a delta-rule fast matrix.

    Source: Irie et al., ICML 2022, section 4 ("SR-Delta").
    """

    state_names = ("y", "q", "k", "b", "W")

    def __init__(self, hidden_size: int, num_heads: int, **settings: Any) -> None:
        """Settings as :class:`srwm_agents.layers.srwm.SRWMLayer`, whose ``head_output_size`` is 3D + 1 here."""
        dim = hidden_size // num_heads
        super().__init__(hidden_size, num_heads, head_output_size=3 * dim + 1, **settings)
        self.state_shapes = (*self.state_shapes, (num_heads, dim, dim))

    def choices(self, h: Tensor, state: LayerState, resets: Tensor | None = None) -> dict[str, Tensor]:
        """As of every layer; the last of the five learning rates is the fast matrix's."""
        y, q, k, beta = self._read(h, state, resets)
        fast = programme(y, self.head_size)[3]
        return {"q": q, "k": k, "b": torch.cat([beta, fast[..., None]], dim=-1)}

    def _sequence(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        programmed, shift = super()._sequence(h, state[:4], resets)
        y, fast = fast_weights(programmed, state[4], resets, self.backend)
        return y, (*shift, fast)
