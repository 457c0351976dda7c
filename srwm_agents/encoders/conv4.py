"""Conv-4: the small encoder of few-shot learning."""

from __future__ import annotations

from torch import nn


def conv4(in_channels: int, *, channels: int = 64, dropout: float = 0.0) -> nn.Sequential:
    """Four blocks of 3×3 convolution, batch norm, ReLU, 2×2 max-pool (and dropout), flattened at the end.

    [N, C, H, W] -> [N, channels · (H // 16) · (W // 16)]: 64 for 28×28 and 64 channels, 800 for 84×84 and 32.

    Source: Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section 4.1; with 32 channels for
    mini-ImageNet as in Ravi & Larochelle, ICLR 2017. The convolutions have no bias, which the norm would cancel.
    """
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.MaxPool2d(2),
            nn.ReLU(),  # after the pool, which it commutes with: a quarter of the work
        ]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        in_channels = channels
    return nn.Sequential(*layers, nn.Flatten())
