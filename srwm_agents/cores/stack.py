"""A stack of memory layers: linear input, then (memory layer, feed-forward block) times num_layers."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig, core_setting_names
from srwm_agents.layers import FeedForwardBlock, LayerState, MemoryLayer


class StackCore(Core):
    """``num_layers`` memory layers of one class, each followed by a feed-forward block.

    Source: Irie et al., ICML 2022, section 4 and appendix. A layer gets those of the core's settings that its
    constructor takes.
    """

    def __init__(self, config: CoreConfig, layer: type[MemoryLayer]) -> None:
        super().__init__(config)
        settings = {name: getattr(config, name) for name in core_setting_names() if name in keyword_names(layer)}
        self.embed = nn.Linear(config.input_size, config.hidden_size)
        self.layers = nn.ModuleList(layer(**settings) for _ in range(config.num_layers))
        self.blocks = nn.ModuleList(
            FeedForwardBlock(config.hidden_size, config.ff_size, config.dropout) for _ in range(config.num_layers)
        )
        self._shapes_per_layer = [self._memory(i).state_shapes for i in range(config.num_layers)]
        self.codec = StateCodec([shape for shapes in self._shapes_per_layer for shape in shapes])
        self.state_size = self.codec.size

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(self.codec.shapes)

    @property
    def memory_layers(self) -> list[MemoryLayer]:
        return [self._memory(i) for i in range(len(self.layers)) if self._shapes_per_layer[i]]

    def layer_states(self, state: Tensor) -> list[dict[str, Tensor]]:
        if not self.codec.sizes:
            return []
        parts = iter(self.codec.unpack(state[:, : self.codec.size]))
        return [{name: next(parts) for name in layer.state_names} for layer in self.memory_layers]

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


class NoCarryCore(StackCore):
    """A stack without carry-over: it remembers at most ``rollout_length`` steps; Irie et al., ICML 2022, section 4.3.

    The last number of the flat state counts the steps since the state was last dropped; at ``rollout_length`` it is
    dropped again. Acting step by step and learning on a whole rollout thus drop it at the same steps. Deviation: the
    paper drops the state at the trainer's rollout boundaries, which coincide with ours until the first episode ends;
    counting from the episode's beginning makes the policy a function of the episode alone, so that evaluation needs
    no trainer.
    """

    def __init__(self, config: CoreConfig, layer: type[MemoryLayer]) -> None:
        super().__init__(config, layer)
        self.state_size += 1

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (*super().state_shapes, (1,))

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        memory, count = state[:, :-1], state[:, -1]
        batch, steps = x.shape[:2]
        length = self.config.rollout_length
        resets = torch.zeros(batch, steps, dtype=torch.bool, device=x.device) if resets is None else resets
        # Steps since the episode began, before each step: continues the count until the first reset in the row.
        index = torch.arange(steps, device=x.device)
        last_reset = torch.where(resets, index, -1)
        if steps > 1:  # a single step has none before it, and ONNX, to which single steps are exported, has no cummax
            last_reset = last_reset.cummax(dim=1).values
        age = torch.where(last_reset >= 0, index - last_reset, index + count.long()[:, None])
        out, memory = super().run(x, memory, resets | (age % length == 0))
        # The remainder is all that matters, and stays exact in any dtype however long the episode is.
        count = ((age[:, -1] + 1) % length).to(state.dtype) if steps else count
        return out, torch.cat([memory, count[:, None]], dim=1)


def keyword_names(layer: type[nn.Module]) -> set[str]:
    """Names of the arguments that a module's constructor takes, those that it passes on to its base class included."""
    names: set[str] = set()
    for cls in layer.__mro__:
        if "__init__" in vars(cls):
            parameters = inspect.signature(cls.__init__).parameters.values()
            names |= {parameter.name for parameter in parameters}
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
    return names
