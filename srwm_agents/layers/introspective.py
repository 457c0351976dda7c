"""Schmidhuber's introspective net of 1993 as a residual layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srwm_agents.introspective import Dynamics, State, Wiring
from srwm_agents.introspective.net import initial_weights
from srwm_agents.layers.memory import HeadsLayer, LayerState
from srwm_agents.ops.triton_support import state_dtype, without_autocast


class IntrospectiveLayer(HeadsLayer):
    """H introspective nets side by side, each with D inputs and D outputs.

    Source: J. Schmidhuber, "A self-referential weight matrix", ICANN 1993; see
    :mod:`srwm_agents.introspective.dynamics`. Deviations: there are no eval units, since a layer sees no targets (what
    performance is to be known comes with the inputs, as rewards and labels do for every core); outputs are tanh units;
    a step's output is o(t + 1) = f(net(t + 1)), which depends on x(t) and nothing later, so that an agent does not act
    on its last but one observation. The state is net, val, and the *shift* of the weights from W(1): zeros are a fresh
    episode. Computed in float32 or wider, autocast or not: pointers need the digits.
    """

    state_names = ("net", "val", "W")

    def __init__(self, hidden_size: int, num_heads: int, *, input_norm: bool = False, dropout: float = 0.0) -> None:
        """Settings as :class:`srwm_agents.layers.memory.HeadsLayer`."""
        super().__init__(hidden_size, num_heads, input_norm=input_norm, dropout=dropout)
        wiring = Wiring(self.head_size, self.head_size, num_evals=0)
        self.dynamics = Dynamics(wiring, output_activation="tanh").to(torch.get_default_dtype())
        weights = torch.stack([initial_weights(wiring, 1.0) for _ in range(num_heads)])
        self.w_initial = nn.Parameter(weights.to(torch.get_default_dtype()))
        units = wiring.num_units
        self.state_shapes = ((num_heads, units), (num_heads, 1), (num_heads, units, wiring.num_sources))

    def slow_weights(self) -> dict[str, Tensor]:
        return {"W": self.w_initial}

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        with without_autocast(h):
            y, state = self._mix(self.heads(h).to(state_dtype(self.w_initial)), state, resets)
        return y.to(h.dtype), state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntrospectiveLayer:
        """As for every module (``.to``, ``.double``), but the dynamics, without weights, stay at least float32."""
        super()._apply(fn, recurse)
        self.dynamics.to(state_dtype(self.w_initial))
        return self

    def _mix(self, x: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        """The H nets of B episodes are B·H sequences of the dynamics."""
        batch, heads = x.shape[0], self.num_heads
        initial = self.w_initial.to(x.dtype).expand(batch, -1, -1, -1)
        net, val, shift = state
        outputs = [x.new_zeros(batch, 0, heads, self.head_size)]
        for t in range(x.shape[1]):
            if resets is not None:
                reset = resets[:, t, None, None]
                net, val = net.masked_fill(reset, 0), val.masked_fill(reset, 0)
                shift = shift.masked_fill(reset[..., None], 0)
            now = State(
                net.flatten(0, 1), net.new_zeros(batch * heads, 0), val.flatten(0, 1), (initial + shift).flatten(0, 1)
            )
            following, _ = self.dynamics.step(now, x[:, t].flatten(0, 1))
            net, val = (part.unflatten(0, (batch, heads)) for part in (following.net, following.val))
            shift = following.weight.unflatten(0, (batch, heads)) - initial
            activation = self.dynamics.activation(net)[..., self.dynamics.wiring.output]
            outputs.append(activation[:, None])
        return torch.cat(outputs, dim=1), (net, val, shift)
