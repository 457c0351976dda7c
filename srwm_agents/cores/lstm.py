"""PyTorch's LSTM as a core."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig


class LSTMCore(Core):
    """``num_layers`` LSTM layers of ``hidden_size``; Hochreiter & Schmidhuber, 1997, with forget gates.

    With ``input_norm`` they are given a layer norm of a linear embedding of the input, as the layers of the other
    cores are; without, the input itself. Nothing then bounds what an encoder gives an LSTM, and one that is saturated
    passes no gradient back. The norm never stands on the input itself: of CartPole's two numbers it would leave a sign.

    The flat state is (h, c), each [num_layers, hidden_size]; the recurrence is computed in the parameters' dtype under
    autocast too, so that c is not rounded at every step. Without resets, all steps are one call (cuDNN's on a GPU).
    With them it goes step by step: cuDNN has no resets, and cutting the rows into segments makes shapes depend on
    where episodes end, which costs a wait for the device and cannot be a CUDA graph.
    """

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        hidden, layers = config.hidden_size, config.num_layers
        self.embed = nn.Identity()
        if config.input_norm:
            self.embed = nn.Sequential(nn.Linear(config.input_size, hidden), nn.LayerNorm(hidden))
        width = hidden if config.input_norm else config.input_size
        dropout = config.dropout if layers > 1 else 0.0
        self.lstm = nn.LSTM(width, hidden, layers, dropout=dropout, batch_first=True)
        self.codec = StateCodec([(layers, hidden)] * 2)
        self.state_size = self.codec.size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.codec.shapes)

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.embed(x)
        dtype = next(self.lstm.parameters()).dtype
        with torch.autocast(x.device.type, enabled=False):
            return self._recur(x.to(dtype), state.to(dtype), resets)

    def _recur(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps = x.shape[:2]
        if steps == 0:
            return x.new_zeros(batch, 0, self.output_size), state
        if resets is not None and steps > 1:
            return self._steps(x, state, resets)
        if resets is not None:
            state = state.masked_fill(resets, 0)
        h, c = (part.transpose(0, 1).contiguous() for part in self.codec.unpack(state))
        out, (h, c) = self.lstm(x, (h, c))
        return out, self.codec.pack([h.transpose(0, 1), c.transpose(0, 1)], batch)

    def _steps(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        h, c = (list(part.unbind(1)) for part in self.codec.unpack(state))  # one [B, hidden] a layer
        outputs = []
        for t in range(x.shape[1]):
            below, reset = x[:, t], resets[:, t, None]
            for layer, weights in enumerate(self.lstm.all_weights):
                if layer > 0:
                    below = functional.dropout(below, self.lstm.dropout, self.training)
                # Filled, not multiplied: NaN times zero is NaN.
                before = [h[layer].masked_fill(reset, 0), c[layer].masked_fill(reset, 0)]
                h[layer], c[layer] = torch.lstm_cell(below, before, *weights)
                below = h[layer]
            outputs.append(below)
        return torch.stack(outputs, dim=1), self.codec.pack([torch.stack(h, 1), torch.stack(c, 1)], len(x))
