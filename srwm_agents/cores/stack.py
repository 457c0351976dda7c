"""A core made of memory layers: linear input, then (memory layer, feed-forward block) times num_layers."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig
from srwm_agents.layers import FeedForwardBlock, LayerState, MemoryLayer


class StackCore(Core):
    """The common stack; a subclass says which memory layer stands in it."""

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.input_size, config.hidden_size)
        self.layers = nn.ModuleList(self.make_layer(config) for _ in range(config.num_layers))
        self.blocks = nn.ModuleList(
            FeedForwardBlock(config.hidden_size, config.ff_size, config.dropout) for _ in range(config.num_layers)
        )
        self._shapes_per_layer = [self._memory(i).state_shapes for i in range(config.num_layers)]
        self.codec = StateCodec([shape for shapes in self._shapes_per_layer for shape in shapes])
        self.state_size = self.codec.size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.codec.shapes)

    def make_layer(self, config: CoreConfig) -> MemoryLayer:
        """A new memory layer for the stack."""
        raise NotImplementedError

    def _memory(self, index: int) -> MemoryLayer:
        layer = self.layers[index]
        assert isinstance(layer, MemoryLayer)
        return layer

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.embed(x)
        parts = self.codec.unpack(state) if self.codec.sizes else ()
        next_parts: LayerState = ()
        for i, block in enumerate(self.blocks):
            start = len(next_parts)
            h, layer_state = self.layers[i](h, parts[start : start + len(self._shapes_per_layer[i])], resets)
            next_parts = (*next_parts, *layer_state)
            h = block(h)
        return h, self.codec.pack(next_parts, x.shape[0]) if next_parts else state
