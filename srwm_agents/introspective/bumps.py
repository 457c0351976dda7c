"""The bump function g of eqs. (2) and (3), which weighs a connection by its address's distance from a pointer.

A bump is any callable that maps squared distances to values in [0, 1] with g(0) = 1, and has the method ``slope`` for
its derivative g' *with respect to the squared distance*, which eqs. (10) and (13) need. Both are elementwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Bump(Protocol):
    """The function g of :class:`srwm_agents.introspective.dynamics.Dynamics`, with its derivative."""

    def __call__(self, squared_distance: Tensor) -> Tensor:
        """g(s)."""
        ...

    def slope(self, squared_distance: Tensor) -> Tensor:
        """g'(s) = dg/ds."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Gaussian bump g(s) = exp(-s / (2 width²)): positive everywhere, so that distant pointers get a gradient, too."""

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
    """Bump with compact support: g(s) = (1 - s / width²)³ within the radius ``width``, 0 outside.

    It is twice continuously differentiable. Addresses are at least 1 apart, so with ``width`` <= 0.5 a pointer reaches
    at most one connection.
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
    """Make a bump by name; ValueError for an unknown name or a width that is not positive."""
    if name not in BUMPS:
        raise ValueError(f"unknown bump {name!r}, allowed: {', '.join(BUMPS)}")
    return BUMPS[name](width)


def _check_width(width: float) -> None:
    if not width > 0:
        raise ValueError(f"width is {width}, expected more than 0")
