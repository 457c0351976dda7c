"""The memory that people know: PyTorch's LSTM behind the same interface."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig


class LSTMCore(Core):
    """``num_layers`` LSTM layers of ``hidden_size``; num_heads and ff_size are accepted and unused.

    With ``input_norm`` a layer norm stands before the first. Without one nothing bounds what an encoder gives it, and
    an LSTM that is saturated passes no gradient back (docs/results/procgen.md, memory mode).

    The flat state is (h, c), each [num_layers, hidden_size]. Without resets, all steps are one call (cuDNN's on a GPU).
    With them it goes step by step: cuDNN knows no resets, and cutting the rows into segments makes shapes depend on
    where episodes end, which costs a wait for the device and cannot be a CUDA graph.
    """

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        dropout = config.dropout if config.num_layers > 1 else 0.0
        self.norm = nn.LayerNorm(config.input_size) if config.input_norm else nn.Identity()
        self.lstm = nn.LSTM(config.input_size, config.hidden_size, config.num_layers, dropout=dropout, batch_first=True)
        self.codec = StateCodec([(config.num_layers, config.hidden_size)] * 2)
        self.state_size = self.codec.size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.codec.shapes)

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps = x.shape[:2]
        if steps == 0:
            return x.new_zeros(batch, 0, self.output_size), state
        x = self.norm(x)
        if resets is None or steps == 1:
            if resets is not None:
                state = state.masked_fill(resets, 0)
            hc = tuple(part.transpose(0, 1).contiguous() for part in self.codec.unpack(state))
            out, hc = self.lstm(x, hc)
            return out, self._flat(hc, batch)
        return self._steps(x, state, resets)

    def _flat(self, hc: tuple[Tensor, Tensor], batch: int) -> Tensor:
        return self.codec.pack([part.transpose(0, 1) for part in hc], batch)

    def _steps(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        h, c = (list(part.unbind(1)) for part in self.codec.unpack(state))  # one [B, hidden] a layer
        keep = (~resets).to(x.dtype)[..., None]
        outputs = []
        for t in range(x.shape[1]):
            below = x[:, t]
            for layer, weights in enumerate(self.lstm.all_weights):
                if layer > 0:
                    below = functional.dropout(below, self.lstm.dropout, self.training)
                h[layer], c[layer] = torch.lstm_cell(below, [h[layer] * keep[:, t], c[layer] * keep[:, t]], *weights)
                below = h[layer]
            outputs.append(below)
        return torch.stack(outputs, dim=1), self.codec.pack([torch.stack(h, 1), torch.stack(c, 1)], len(x))
