"""minGRU's layer: a gated recurrence whose gate and candidate do not depend on the state."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.layers.memory import LayerState, ResidualLayer
from srwm_agents.ops.linear_scan import linear_scan


class MinGRULayer(ResidualLayer):
    """h[t] = (1 - z[t]) h[t-1] + z[t] c[t], with z = sigmoid(W_z x) and c = W_c x: linear in h, so a scan over time.

    Source: Feng et al., "Were RNNs All We Needed?", 2024, arXiv:2410.01201, section 3.1 and algorithms 1 and 2 (the
    candidate without tanh and without the positive function g, which is for the scan in log space only). Deviation:
    the scan is of the numbers themselves, which is stable, since all factors are in (0, 1) and nothing is divided by
    them. The state is as wide as the residual stream, as with the paper's expansion factor 1; the paper's convolution
    before the layer is left out.
    """

    state_names = ("h",)

    def __init__(self, hidden_size: int, *, input_norm: bool = False, dropout: float = 0.0) -> None:
        """Settings as :class:`srwm_agents.layers.memory.ResidualLayer`."""
        super().__init__(hidden_size, input_norm=input_norm, dropout=dropout)
        self.gate = nn.Linear(hidden_size, hidden_size)
        self.candidate = nn.Linear(hidden_size, hidden_size)
        self.state_shapes = ((hidden_size,),)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        z = self.gate(h).to(state[0].dtype).sigmoid()
        states, final = linear_scan(1 - z, z * self.candidate(h).to(z.dtype), state[0], resets=resets)
        return states.to(h.dtype), (final,)
