"""From gymnasium's spaces to entries and actions, and from its observations to arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.entries import MOST_CATEGORIES, Entry, SpaceError

Array = npt.NDArray[Any]

ROOT = "obs"
"""Name of the only entry of an observation that is no Dict and no Tuple, and the beginning of all other names."""
SMALLEST_IMAGE = 32
"""Height and width from which on an array is an image for convolutions; smaller ones are vectors."""

_ALLOWED = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
_ALLOWED_ACTIONS = "Discrete, MultiDiscrete, MultiBinary, or a Box of real numbers"


@dataclass(frozen=True)
class Leaf:
    """One entry of an observation: where it lies in gymnasium's, and how it becomes an array."""

    name: str
    """ "obs", or "obs/KEY" and "obs/INDEX" within a Dict and a Tuple, and so on."""
    path: tuple[Any, ...]
    """Keys and indices from the observation to the value."""
    entry: Entry
    dtype: np.dtype[Any]
    """Of the array: uint8 for images of bytes, int64 for categories, else float32."""
    convert: Callable[[Array], Array]
    """Values [N, …] as the space has them -> [N, *entry.shape]."""

    def value(self, observation: Any) -> Any:
        """The value in one observation, or the batch of values in a batch of them."""
        for key in self.path:
            observation = observation[key]
        return observation

    def arrays(self, batch: Any) -> Array:
        """A batch of observations (as gymnasium's vectors give them) -> an array [N, *entry.shape]."""
        return self.convert(np.asarray(self.value(batch))).astype(self.dtype, copy=False)

    def wrong(self, arrays: Array) -> str | None:
        """What no network can take in [N, *entry.shape], in words; None if there is nothing."""
        if self.entry.kind == "categories":
            outside = (arrays < 0) | (arrays >= np.asarray(self.entry.sizes))
            if outside.any():
                row, column = (int(index) for index in np.argwhere(outside)[0])
                allowed = f"0 to {self.entry.sizes[column] - 1}, counted from the space's start"
                return f"observation {self.name!r} is {arrays[row, column]}, allowed: {allowed}"
        elif arrays.dtype.kind == "f" and not np.isfinite(arrays).all():
            return f"observation {self.name!r} has {arrays[~np.isfinite(arrays)][0]}, expected finite numbers"
        return None

    @property
    def space(self) -> spaces.Box:
        """The entry as a Box."""
        shape = self.entry.shape
        if self.entry.kind == "categories":
            return spaces.Box(np.zeros(shape, np.int64), np.asarray(self.entry.sizes) - 1, shape, np.int64)
        if self.dtype == np.uint8:
            return spaces.Box(0, 255, shape, np.uint8)
        return spaces.Box(-np.inf, np.inf, shape, np.float32)


def leaves_of(space: spaces.Space[Any]) -> list[Leaf]:
    """The entries of an observation space, in the space's own order.

    Arrays of numbers with three dimensions (height, width and 1, 3 or 4 channels, in either order) or two, of at least
    32×32, are images, channels first; all other arrays are vectors, flattened. Discrete and MultiDiscrete are
    categories, MultiBinary a vector.

    Raises:
        SpaceError: a space of another kind within it, which is named with what is allowed.
    """
    leaves = list(_leaves(space, ROOT, ()))
    if not leaves:
        raise SpaceError(f"the observation space {_text(space)} is empty, allowed: {_ALLOWED}")
    names = [leaf.name for leaf in leaves]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SpaceError(f"the observation space has two entries that would be named {twice[0]!r}")
    return leaves


def _leaves(space: spaces.Space[Any], name: str, path: tuple[Any, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(part, f"{name}/{_plain(key)}", (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(part, f"{name}/{index}", (*path, index))
    else:
        yield _leaf(space, name, path)


def _leaf(space: spaces.Space[Any], name: str, path: tuple[Any, ...]) -> Leaf:
    real, whole = np.dtype(np.float32), np.dtype(np.int64)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        if isinstance(space, spaces.Discrete):
            sizes, start = (int(space.n),), np.asarray(space.start)
        else:
            sizes = tuple(int(size) for size in space.nvec.reshape(-1))
            start = np.asarray(getattr(space, "start", np.zeros_like(space.nvec))).reshape(-1)
        if sum(sizes) > MOST_CATEGORIES:
            raise SpaceError(f"{_where(name)} {_text(space)} has {sum(sizes):,} values, allowed: {MOST_CATEGORIES:,}")
        entry = Entry("categories", (len(sizes),), sizes)
        return Leaf(name, path, entry, whole, lambda values: values.reshape(len(values), -1) - start)
    if isinstance(space, spaces.MultiBinary) or (isinstance(space, spaces.Box) and not _is_image(space)):
        width = int(np.prod(space.shape))
        if width == 0:
            raise SpaceError(f"{_where(name)} {_text(space)} has no numbers in it")
        return Leaf(name, path, Entry("vector", (width,)), real, lambda values: values.reshape(len(values), -1))
    if isinstance(space, spaces.Box):
        shape, order = _channels_first(space.shape)
        bytes_ = space.dtype == np.uint8
        axes = None if order is None else (0, *(axis + 1 for axis in order))
        return Leaf(
            name,
            path,
            Entry("image", shape),
            np.dtype(np.uint8) if bytes_ else real,
            lambda values: (values if axes is None else values.transpose(axes)).reshape(len(values), *shape),
        )
    raise SpaceError(f"{_where(name)} is {_text(space)}, allowed: {_ALLOWED}")


def _is_image(space: spaces.Box) -> bool:
    shape = space.shape
    if len(shape) == 2:
        return min(shape) >= SMALLEST_IMAGE and space.dtype == np.uint8
    return len(shape) == 3 and sorted(shape)[1] >= SMALLEST_IMAGE


def _channels_first(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """The shape (C, H, W) of an image, and the axes that make it so; None where it is so already."""
    if len(shape) == 2:
        return (1, *shape), None
    if shape[2] < shape[0]:
        return (shape[2], shape[0], shape[1]), (2, 0, 1)
    return shape, None


def actions_of(space: spaces.Space[Any]) -> ActionSpec:
    """An action space as a policy has it.

    Raises:
        SpaceError: a space of another kind; the message has what is allowed.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (int(space.n),), (int(space.start),) if space.start else ())
    if isinstance(space, spaces.MultiDiscrete):
        start = tuple(int(first) for first in np.reshape(getattr(space, "start", 0 * space.nvec), -1))
        sizes = tuple(int(size) for size in space.nvec.reshape(-1))
        return ActionSpec("multi_discrete", sizes, start if any(start) else (), tuple(space.nvec.shape))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_discrete", (2,) * int(np.prod(space.shape)), (), tuple(space.shape))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and int(np.prod(space.shape)):
        bounds = [
            (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else (None, None)
            for low, high in zip(space.low.reshape(-1), space.high.reshape(-1), strict=True)
        ]
        low, high = zip(*bounds, strict=True)
        return ActionSpec("box", shape=tuple(space.shape), low=low, high=high)
    raise SpaceError(f"the action space is {_text(space)}, allowed: {_ALLOWED_ACTIONS}")


def values_of(space: spaces.Space[Any]) -> tuple[int, ...]:
    """The numbers of values of whole numbers that count from 0, in whichever space; () for another space."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(size) for size in space.nvec.reshape(-1))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        return tuple(int(high) + 1 for high in space.high.reshape(-1))
    return ()


def _where(name: str) -> str:
    return "the observation space" if name == ROOT else f"the observation space's {name.removeprefix(ROOT + '/')!r}"


def _plain(key: Any) -> str:
    """A key as a part of a name: PyTorch's modules have no dots in theirs."""
    return str(key).replace(".", "_")


def _text(space: spaces.Space[Any]) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 120 else text[:117] + "…"
