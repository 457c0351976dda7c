"""What there is to see in a core's state: matrices by layer, head and block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srwm_agents.cores import Core
from srwm_agents.layers import HeadsLayer, MemoryLayer

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Block:
    """A part of a head's matrix."""

    name: str
    """ "y", "q", "k", "b" of an SRWM; "W" of a matrix that is one piece."""
    columns: int
    slow: tuple[float, ...] = ()
    """Frobenius norm of each head's slow weights, of which the state is the shift; () where the state is the matrix."""


@dataclass(frozen=True)
class Layer:
    """A memory layer's matrices: [heads, rows, columns of all blocks]."""

    heads: int
    rows: int
    blocks: tuple[Block, ...]
    rates: tuple[str, ...]
    """What each learning rate is for; () where the layer has none that can be read."""

    @property
    def columns(self) -> int:
        """Of all blocks."""
        return sum(block.columns for block in self.blocks)

    @property
    def is_shift(self) -> bool:
        """Whether the first block is a shift from slow weights."""
        return bool(self.blocks[0].slow)


class LayerReading(NamedTuple):
    """One layer of one environment after a step."""

    matrix: Floats
    """[heads, rows, columns]."""
    sizes: Floats
    """[heads, blocks]: Frobenius norms, of a shift in units of its slow weights'."""
    rates: Floats
    """[heads, rates]: the learning rates of this step's rewriting."""


class Reading(NamedTuple):
    """A core's memory of one environment after a step."""

    layers: tuple[LayerReading, ...]
    """As :func:`layers_of` lists them; () for a core without matrices."""
    state_size: float
    """Euclidean norm of the whole state."""


def layers_of(core: Core) -> list[Layer]:
    """The layers of a core that have matrices; [] for a core that has none (lstm, feedforward, …)."""
    return [_layer(layer) for layer in core.memory_layers if matrix_names(layer)]


def matrix_names(layer: MemoryLayer) -> list[str]:
    """The state tensors of a layer that are matrices, one a head: [H, rows, columns]."""
    if not isinstance(layer, HeadsLayer):
        return []
    named = zip(layer.state_names, layer.state_shapes, strict=True)
    return [name for name, shape in named if len(shape) == 3]


@torch.no_grad()
def _layer(layer: MemoryLayer) -> Layer:
    shapes = dict(zip(layer.state_names, layer.state_shapes, strict=True))
    slow, names = layer.slow_weights(), matrix_names(layer)
    blocks = tuple(
        Block(
            name,
            shapes[name][2],
            tuple(slow[name].float().flatten(1).norm(dim=1).tolist()) if name in slow else (),
        )
        for name in names
    )
    heads, rows, _ = shapes[names[0]]
    weight = next(layer.parameters())
    state = tuple(weight.new_zeros(1, *shape) for shape in layer.state_shapes)
    width = layer.num_heads * layer.head_size if isinstance(layer, HeadsLayer) else 0
    rates = layer.choices(weight.new_zeros(1, 1, width), state).get("b")
    return Layer(heads, rows, blocks, tuple(names[: rates.shape[-1]]) if rates is not None else ())


def read_layer(layer: Layer, state: dict[str, Tensor], choices: dict[str, Tensor], row: int) -> LayerReading:
    """A layer's reading of one row of the batch.

    Args:
        layer: its layout.
        state: after the step, as of ``Core.layer_states``.
        choices: of the step, as of ``MemoryLayer.choices``.
        row: of the batch.
    """
    parts = [state[block.name][row].float() for block in layer.blocks]
    sizes = torch.stack([part.flatten(1).norm(dim=1) for part in parts], dim=1).cpu().numpy()
    units = np.array([block.slow or (1.0,) * layer.heads for block in layer.blocks], np.float32).T
    rates = choices["b"][row].float().cpu().numpy() if layer.rates else np.zeros((layer.heads, 0), np.float32)
    return LayerReading(torch.cat(parts, dim=2).cpu().numpy(), sizes / np.maximum(units, 1e-12), rates)


def layers_to_json(layers: list[Layer]) -> list[dict[str, Any]]:
    """For the page."""
    return [
        {
            "heads": layer.heads,
            "rows": layer.rows,
            "blocks": [{"name": block.name, "columns": block.columns} for block in layer.blocks],
            "rates": list(layer.rates),
            "shift": layer.is_shift,
        }
        for layer in layers
    ]
