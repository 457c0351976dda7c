"""PyTorch's LSTM and GRU as cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig
from srwm_agents.ops import gru, lstm


class RecurrentCore(Core):
    """``num_layers`` recurrent layers of PyTorch's, each of ``hidden_size``.

    With ``input_norm`` they are given a layer norm of a linear embedding of the input, as the layers of the other
    cores are; without, the input itself. Nothing then bounds what an encoder gives the layers, and one that is
    saturated passes no gradient back. The norm never stands on the input itself: of CartPole's two numbers it would
    leave a sign.

    The recurrence is computed in the parameters' dtype under autocast too, so that no state is rounded at every step.
    Without resets, all steps are one call (cuDNN's on a GPU). cuDNN has no resets, and cutting the rows into segments
    makes shapes depend on where episodes end, which costs a wait for the device and cannot be a CUDA graph. With resets
    a layer is thus a matrix product of all steps' inputs and :attr:`recurrence`: one kernel on a GPU, else step by
    step.
    """

    parts: int
    """State tensors of a layer, each [hidden_size]."""
    recurrence: Callable[..., tuple[Tensor, ...]]
    """The op of one layer: :func:`srwm_agents.ops.lstm` or :func:`srwm_agents.ops.gru`."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.embed = nn.Identity()
        if config.input_norm:
            self.embed = nn.Sequential(
                nn.Linear(config.input_size, config.hidden_size), nn.LayerNorm(config.hidden_size)
            )
        self.codec = StateCodec([(config.num_layers, config.hidden_size)] * self.parts)
        self.state_size = self.codec.size

    def _make(self, layers: Callable[..., Any]) -> Any:
        config = self.config
        width = config.hidden_size if config.input_norm else config.input_size
        dropout = config.dropout if config.num_layers > 1 else 0.0
        return layers(width, config.hidden_size, config.num_layers, dropout=dropout, batch_first=True)

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.codec.shapes)

    def layer_states(self, state: Tensor) -> list[dict[str, Tensor]]:
        parts = dict(zip("hc", self.codec.unpack(state), strict=False))
        return [{name: part[:, i] for name, part in parts.items()} for i in range(self.config.num_layers)]

    @property
    def _layers(self) -> nn.RNNBase:
        """The layers, which the subclass keeps under the name that they have in saved agents."""
        raise NotImplementedError

    def _sequence(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        """All steps of all layers; states [num_layers, B, hidden_size]."""
        raise NotImplementedError

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        x = self.embed(x)
        dtype = next(self._layers.parameters()).dtype
        with torch.autocast(x.device.type, enabled=False):
            return self._recur(x.to(dtype), state.to(dtype), resets)

    def _recur(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, steps = x.shape[:2]
        if steps == 0:
            return x.new_zeros(batch, 0, self.output_size), state
        if resets is not None and steps > 1:
            return self._layer_by_layer(x, state, resets)
        if resets is not None:
            state = state.masked_fill(resets, 0)
        out, final = self._sequence(x, [part.transpose(0, 1).contiguous() for part in self.codec.unpack(state)])
        return out, self.codec.pack([part.transpose(0, 1) for part in final], batch)

    def _layer_by_layer(self, x: Tensor, state: Tensor, resets: Tensor) -> tuple[Tensor, Tensor]:
        # For each layer its states before the first step, each [B, hidden], and those after the last.
        states = list(zip(*(part.unbind(1) for part in self.codec.unpack(state)), strict=True))
        finals = []
        for layer, (weight_ih, weight_hh, bias_ih, bias_hh) in enumerate(self._layers.all_weights):
            if layer > 0:
                x = functional.dropout(x, self._layers.dropout, self.training)
            gates = functional.linear(x, weight_ih, bias_ih)
            x, *final = self.recurrence(gates, weight_hh, bias_hh, *states[layer], resets=resets)
            finals.append(final)
        return x, self.codec.pack([torch.stack(part, 1) for part in zip(*finals, strict=True)], len(x))


class LSTMCore(RecurrentCore):
    """LSTM layers: Hochreiter & Schmidhuber, 1997, with forget gates. The flat state is (h, c)."""

    parts = 2
    recurrence = staticmethod(lstm)

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.lstm = self._make(nn.LSTM)

    @property
    def _layers(self) -> nn.RNNBase:
        return self.lstm

    def _sequence(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        return self.lstm(x, tuple(state))


class GRUCore(RecurrentCore):
    """GRU layers: Cho et al., EMNLP 2014, arXiv:1406.1078, in PyTorch's form, whose reset gate is applied after the
    matrix product. The flat state is h.
    """

    parts = 1
    recurrence = staticmethod(gru)

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.gru = self._make(nn.GRU)

    @property
    def _layers(self) -> nn.RNNBase:
        return self.gru

    def _sequence(self, x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
        out, final = self.gru(x, state[0])
        return out, [final]
