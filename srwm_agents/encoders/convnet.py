"""Plain convolutional encoders, small enough for a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def plain_convs(in_channels: int, layers: Sequence[tuple[int, int, int]], activation: type[nn.Module]) -> nn.Sequential:
    """Convolutions (out_channels, kernel, stride), each followed by the activation."""
    modules: list[nn.Module] = []
    for out_channels, kernel, stride in layers:
        modules += [nn.Conv2d(in_channels, out_channels, kernel, stride=stride), activation()]
        in_channels = out_channels
    return nn.Sequential(*modules)
