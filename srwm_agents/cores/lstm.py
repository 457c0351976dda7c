"""The memory that people know: PyTorch's LSTM behind the same interface."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig


class LSTMCore(Core):
    """``num_layers`` LSTM layers of ``hidden_size``; num_heads and ff_size are accepted and unused.

    The flat state is (h, c), each [num_layers, hidden_size]. With resets the rows are cut into segments between them,
    and one packed call (cuDNN's on a GPU) runs all segments at once.
    """

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        dropout = config.dropout if config.num_layers > 1 else 0.0
        self.lstm = nn.LSTM(config.input_size, config.hidden_size, config.num_layers, dropout=dropout, batch_first=True)
        self.codec = StateCodec([(config.num_layers, config.hidden_size)] * 2)
        self.state_size = self.codec.size

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps = x.shape[:2]
        if steps == 0:
            return x.new_zeros(batch, 0, self.output_size), state
        if resets is None or steps == 1:
            if resets is not None:
                state = state.masked_fill(resets, 0)
            hc = tuple(part.transpose(0, 1).contiguous() for part in self.codec.unpack(state))
            out, hc = self.lstm(x, hc)
            return out, self._flat(hc, batch)
        return self._segments(x, state, resets)

    def _flat(self, hc: tuple[Tensor, Tensor], batch: int) -> Tensor:
        return self.codec.pack([part.transpose(0, 1) for part in hc], batch)

    def _segments(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps = x.shape[:2]
        begins = resets.clone()
        begins[:, 0] = True
        starts = begins.flatten().nonzero().squeeze(1)  # [S], into the flattened [B*T]
        ends = torch.cat([starts[1:], starts.new_tensor([batch * steps])])
        lengths = ends - starts

        # A segment begins with its row's state if it begins the row and is not reset there, else with zeros.
        rows, columns = starts // steps, starts % steps
        carries = (columns == 0) & ~resets[rows, columns]
        begin_state = state[rows] * carries[:, None]

        offsets = torch.arange(int(lengths.max()), device=x.device)
        inside = offsets < lengths[:, None]  # [S, longest]
        index = torch.where(inside, starts[:, None] + offsets, 0)
        packed = pack_padded_sequence(x.flatten(0, 1)[index], lengths.cpu(), batch_first=True, enforce_sorted=False)
        hc = tuple(part.transpose(0, 1).contiguous() for part in self.codec.unpack(begin_state))
        out, hc = self.lstm(packed, hc)
        padded, _ = pad_packed_sequence(out, batch_first=True)
        # Segments lie in the order of the flattened rows, so masking the padding restores [B*T].
        return padded[inside].unflatten(0, (batch, steps)), self._flat(hc, len(starts))[ends % steps == 0]
