"""The flat-state codec: many state tensors to one row per episode, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class StateCodec:
    """Packs tensors of fixed shapes into one flat [B, size] tensor, in order, and unpacks it as views.

    Frameworks carry recurrent state as one vector an environment; a codec is all that they need to know of ours.
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        """``shapes`` of the parts, without the batch dimension."""
        self.shapes = [tuple(shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.size = sum(self.sizes)

    def pack(self, parts: Sequence[Tensor], batch_size: int) -> Tensor:
        """Parts [B, *shape] -> [B, size]; no parts give [B, 0]."""
        if not parts:
            return torch.zeros(batch_size, 0)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def unpack(self, flat: Tensor) -> tuple[Tensor, ...]:
        """[B, size] -> parts [B, *shape], views where the memory allows."""
        return tuple(
            part.reshape(-1, *shape) for part, shape in zip(flat.split(self.sizes, dim=1), self.shapes, strict=True)
        )
