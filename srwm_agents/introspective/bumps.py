"""The bump g that decides how near a pointer must be to a connection's address; eqs. (2) and (3).

A bump is any callable that maps squared distances to values in [0, 1] with g(0) = 1, and has the method ``slope`` for
its derivative g' *with respect to the squared distance*, which eqs. (10) and (13) need. Both are elementwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Bump(Protocol):
    """What :class:`srwm_agents.introspective.dynamics.Dynamics` takes as g."""

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """g(s)."""
        ...

    def slope(self, squared_distance: Tensor) -> Tensor:
        """g'(s) = dg/ds."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """g(s) = exp(-s / (2 width²)): smooth, nearly zero far away, so that a gradient may call a pointer from afar."""

    width: float = 0.5
    """Standard deviation, in units of the distance between neighbouring addresses."""

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, squared_distance: Tensor) -> Tensor:
        return (squared_distance * (-0.5 / self.width**2)).exp()

    def slope(self, squared_distance: Tensor) -> Tensor:
        return self(squared_distance) * (-0.5 / self.width**2)


@dataclass(frozen=True)
class Compact:
    """g(s) = (1 - s / width²)³ inside the radius ``width``, exactly zero outside; twice continuously differentiable.

    Different addresses differ by at least 1, so that with ``width`` <= 0.5 a pointer touches at most one connection.
    """

    width: float = 0.5
    """Radius of the support, in units of the distance between neighbouring addresses."""

    def __post_init__(self) -> None:
        _check_width(self.width)

    def __call__(self, squared_distance: Tensor) -> Tensor:
        return (1 - squared_distance / self.width**2).relu() ** 3

    def slope(self, squared_distance: Tensor) -> Tensor:
        return (1 - squared_distance / self.width**2).relu() ** 2 * (-3 / self.width**2)


BUMPS: dict[str, type[Gaussian] | type[Compact]] = {"gaussian": Gaussian, "compact": Compact}


def make_bump(name: str, width: float) -> Bump:
    """A bump by name; ValueError for an unknown name or a width that is not positive."""
    if name not in BUMPS:
        raise ValueError(f"unknown bump {name!r}, allowed: {', '.join(BUMPS)}")
    return BUMPS[name](width)


def _check_width(width: float) -> None:
    if not width > 0:
        raise ValueError(f"width is {width}, expected more than 0")
