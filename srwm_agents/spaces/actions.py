"""The description of an action space: what a policy's head has to give, and what an environment gets of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from srwm_agents.spaces.entries import SpaceError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ActionSpec:
    """K numbers that a policy chooses at each step: whole numbers (``sizes``) or real ones (``low``, ``high``).

    A policy's choice [N, K] is what is stored and learned from. Whole numbers count from 0. Real ones are drawn from a
    Gaussian whose unit is half of an action's range, and ``native`` clips them to it: -1 is ``low``, +1 is ``high``.
    So probabilities are those of the choice before it is clipped, exactly, whatever the environment does with it.
    Clipped and not squashed by a hyperbolic tangent: the ends of the range can be chosen, and the policy gradient of
    the choice needs no correction. It is what most PPO programs do.
    """

    kind: Literal["discrete", "multi_discrete", "box"]
    sizes: tuple[int, ...] = ()
    """Number of values of each whole number; empty for "box"."""
    start: tuple[int, ...] = ()
    """The environment's smallest value of each whole number; empty: 0."""
    shape: tuple[int, ...] = ()
    """Shape of one of the environment's actions; () for "discrete"."""
    low: tuple[float | None, ...] = ()
    """Of each real number, None where there is no bound; empty for whole numbers."""
    high: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("discrete", "multi_discrete", "box"):
            raise ValueError(f"kind is {self.kind!r}, allowed: discrete, multi_discrete, box")
        count = len(self.low) if self.kind == "box" else len(self.sizes)
        if count < 1 or (self.kind == "discrete" and count > 1):
            raise ValueError(f"an action of kind {self.kind!r} has {count} numbers, expected at least 1, or just 1")
        if self.sizes and min(self.sizes) < 1:
            raise ValueError(f"sizes has {min(self.sizes)}, expected at least 1")
        if int(np.prod(self.shape)) != count or len(self.start) not in (0, count) or len(self.high) != len(self.low):
            raise ValueError(f"shape, start, low and high of an action do not fit {count} numbers")

    @classmethod
    def discrete(cls, number: int) -> ActionSpec:
        """One whole number from 0 to ``number - 1``."""
        return cls("discrete", (number,))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> ActionSpec:
        """What :meth:`to_json` made; ``ValueError`` for anything else."""
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise ValueError(f"actions has {unknown[0]!r}, allowed: {', '.join(sorted(known))}")
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON's types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def continuous(self) -> bool:
        """Whether the choice is of real numbers."""
        return self.kind == "box"

    @property
    def count(self) -> int:
        """K, the numbers of one choice."""
        return len(self.low) if self.continuous else len(self.sizes)

    @property
    def parameters(self) -> int:
        """Outputs of the policy's head: a logit a value, or a mean and a log-deviation a real number."""
        return 2 * self.count if self.continuous else sum(self.sizes)

    @property
    def width(self) -> int:
        """Numbers by which :meth:`encoded` describes an action."""
        return self.count if self.continuous else sum(self.sizes)

    def native(self, chosen: Array) -> Array:
        """The environment's actions [N, *shape] of choices [N, K] (or [N] where K is 1), float32 or int64."""
        flat = chosen.reshape(len(chosen), self.count)
        if self.continuous:
            middle, half = self.ranges()
            flat = middle + half * np.where(self._bounded(), np.clip(flat, -1, 1), flat).astype(np.float32)
        else:
            flat = flat.astype(np.int64, copy=False)
            if self.start:
                flat = flat + np.asarray(self.start)
        return flat.reshape(len(chosen), *self.shape)

    def encoded(self, actions: Array) -> Array:
        """Environments' actions [N, *shape] as inputs of a network, float32 [N, width]: one-hot, or from -1 to 1."""
        flat = np.asarray(actions).reshape(len(actions), self.count)
        if self.continuous:
            middle, half = self.ranges()
            return ((flat - middle) / half).astype(np.float32)
        if self.start:
            flat = flat - np.asarray(self.start)
        code = np.zeros((len(flat), self.width), np.float32)
        firsts = np.cumsum([0, *self.sizes[:-1]])
        code[np.arange(len(flat))[:, None], flat + firsts] = 1
        return code

    def _bounded(self) -> Array:
        return np.array([low is not None for low in self.low])

    def ranges(self) -> tuple[Array, Array]:
        """Middle and half of each real number's range, float32 [K]; 0 and 1 where there is none."""
        low = np.array([-1 if bound is None else bound for bound in self.low], np.float32)
        high = np.array([1 if bound is None else bound for bound in self.high], np.float32)
        return (low + high) / 2, (high - low) / 2


def check_choice(spec: ActionSpec, actions: Array, number: int) -> Array:
    """Return environments' actions as an array [number, *shape].

    Raises:
        ValueError: the wrong shape or type, or a whole number out of its range.
    """
    taken = np.asarray(actions)
    if taken.shape != (number, *spec.shape):
        raise ValueError(f"actions have shape {list(taken.shape)}, expected {[number, *spec.shape]}")
    if spec.continuous:
        if taken.dtype.kind not in "fiu":
            raise ValueError(f"actions are of type {taken.dtype}, expected real numbers")
        return taken.astype(np.float32, copy=False)
    if taken.dtype.kind not in "iu":
        raise ValueError(f"actions are of type {taken.dtype}, expected whole numbers")
    flat = taken.reshape(number, spec.count)
    start = np.asarray(spec.start or [0] * spec.count)
    wrong = (flat < start) | (flat >= start + np.asarray(spec.sizes))
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        last = int(start[column]) + spec.sizes[column] - 1
        raise ValueError(f"an action is {flat[row, column]}, allowed: {start[column]} to {last}")
    return taken


__all__ = ["ActionSpec", "SpaceError", "check_choice"]
