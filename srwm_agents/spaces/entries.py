"""Entries of observations: named arrays of one of three kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_CATEGORIES = 100_000
"""Largest number of values of an entry of categories, all indices together: networks get them one-hot."""


class SpaceError(ValueError):
    """A space that an agent cannot have; one line names it and what is allowed."""


@dataclass(frozen=True)
class Entry:
    """One array of an observation, as networks get it, without the batch dimension."""

    kind: Literal["image", "vector", "categories"]
    """An image for convolutions, numbers as they are, or indices that networks get one-hot."""
    shape: tuple[int, ...]
    """image: (C, H, W), uint8 from 0 to 255, or floats as they are. vector: (width,), floats. categories: (K,), whole
    numbers, the k-th from 0 to ``sizes[k] - 1``."""
    sizes: tuple[int, ...] = ()
    """categories: the number of values of each index."""

    @property
    def width(self) -> int:
        """Numbers in the network's input; of an image, before its convolutions."""
        if self.kind == "categories":
            return sum(self.sizes)
        width = 1
        for size in self.shape:
            width *= size
        return width
