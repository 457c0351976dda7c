"""The IMPALA encoder: 15 convolutions in three residual sections."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), same shape out."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


def impala_convs(in_channels: int, channels: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Sections of convolution, max-pool by two and two residual blocks, then the activation.

    Source: Espeholt et al., ICML 2018 (arXiv:1802.01561), figure 3, right; channels 16, 32, 32 as in Procgen's
    baselines (Cobbe et al., ICML 2020).
    """
    layers: list[nn.Module] = []
    for out_channels in channels:
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            ResidualBlock(out_channels, activation),
            ResidualBlock(out_channels, activation),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers, activation())
