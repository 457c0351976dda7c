"""Fast and Forgetful Memory's layer: traces that decay and turn at rates of their own, learned but not gated."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srwm_agents.layers.memory import LayerState, ResidualLayer
from srwm_agents.ops.linear_scan import linear_scan
from srwm_agents.ops.triton_support import without_autocast

LONGEST = 1024
"""Steps of the longest initial period, and after which of the longest initial trace 1% is left."""


class FFMLayer(ResidualLayer):
    """S[t] = exp(-alpha + i omega) S[t-1] + x[t] 1^T: complex traces, m decays alpha by c angles omega.

    x = (W_1 u) sigmoid(W_2 u) is written to all c columns; z = LN(W_3 [Re S, Im S]) is read, and
    g z + (1 - g) W_4 u is the output, with g = sigmoid(W_5 u), for a layer's input u.

    Source: Morad et al., "Reinforcement Learning with Fast and Forgetful Memory", NeurIPS 2023, arXiv:2310.04128,
    section 4; initial values as in the authors' code: decays evenly spaced, the fastest leaving 51% a step, the
    slowest 1% after 1,024 steps; periods evenly spaced from 1 to 1,024 steps. Deviations: alpha is learned as its
    logarithm, so that it needs no clamp to stay positive; no sums of exp(alpha t), so that it needs no lower limit
    and no float64 either; the layer's output is added to the residual stream.
    """

    state_names = ("traces",)

    def __init__(
        self,
        hidden_size: int,
        *,
        trace_size: int = 32,
        context_size: int = 4,
        input_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        """Make a layer.

        Args:
            hidden_size: width of the residual stream.
            trace_size: m, traces with a decay each; 32 as published.
            context_size: c, angles of each trace; 4 as published. The state is 2·m·c numbers.
            input_norm: layer norm before the layer.
            dropout: on the output.
        """
        super().__init__(hidden_size, input_norm=input_norm, dropout=dropout)
        self.trace_size, self.context_size = trace_size, context_size
        self.pre = nn.Linear(hidden_size, 2 * (trace_size + hidden_size))
        self.post = nn.Linear(2 * trace_size * context_size, hidden_size)
        fastest = math.log(torch.finfo(torch.float64).max) / LONGEST - 0.02
        self.log_alpha = nn.Parameter(torch.linspace(fastest, -math.log(0.01) / LONGEST, trace_size).log())
        self.omega = nn.Parameter(2 * math.pi / torch.linspace(1, LONGEST, context_size))
        # Real and imaginary parts side by side in a real state.
        self.state_shapes = ((trace_size, context_size, 2),)

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        width, trace = h.shape[-1], self.trace_size
        x, through, in_gate, out_gate = self.pre(h).split((trace, width, trace, width), dim=-1)
        with without_autocast(h):
            traces, state = self._traces((x * in_gate.sigmoid()).to(state[0].dtype), state, resets)
        z = F.layer_norm(self.post(traces.flatten(2).to(self.post.weight.dtype)), (width,)).to(h.dtype)
        out_gate = out_gate.sigmoid()
        return out_gate * z + (1 - out_gate) * through, state

    def _traces(self, x: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        """x [B, T, m] -> all states [B, T, m, c, 2] and the last.

        In coordinates that turn by omega a step, R[t] = exp(-i omega t) S[t], the recurrence is real:
        R[t] = exp(-alpha) R[t-1] + exp(-i omega t) x[t].
        """
        steps = x.shape[1]
        omega = self.omega.to(x.dtype)
        # Whole turns change nothing, but large angles lose digits.
        omega = omega - 2 * math.pi * (omega / (2 * math.pi)).round().detach()
        angle = torch.arange(1, steps + 1, device=x.device, dtype=x.dtype)[:, None] * omega
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]  # [T, 1, c]
        inputs = x[..., None, None] * torch.stack([cos, -sin], dim=-1)
        decay = (-self.log_alpha.to(x.dtype).exp()).exp()[:, None, None].expand(inputs.shape)
        turned, _ = linear_scan(decay, inputs, state[0], resets=resets)
        real, imaginary = turned.unbind(-1)
        states = torch.stack([cos * real - sin * imaginary, sin * real + cos * imaginary], dim=-1)
        return states, (states[:, -1] if steps else state[0],)
