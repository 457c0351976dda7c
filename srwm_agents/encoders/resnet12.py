"""ResNet-12: the deeper image encoder of few-shot learning."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.encoders.norm_pool import NormPool

SLOPE = 0.1
"""Negative slope of the leaky ReLUs."""


class ResNet12Block(nn.Module):
    """Three 3×3 convolutions with batch norm, a projected shortcut, and 2×2 max-pool: [N, C, H, W] -> half the size."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        widths = (in_channels, channels, channels)
        self.convs = nn.ModuleList(nn.Conv2d(width, channels, 3, padding=1, bias=False) for width in widths)
        self.norms = nn.ModuleList(NormPool(channels, slope=SLOPE, pool=last) for last in (False, False, True))
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), NormPool(channels, slope=1.0, pool=False)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv, norm in zip(self.convs[:2], self.norms[:2], strict=True):
            h = norm(conv(h))
        return self.dropout(self.norms[2](self.convs[2](h), self.shortcut(x)))


def resnet12(in_channels: int, *, channels: int = 64, dropout: float = 0.0) -> nn.Sequential:
    """ResNet-12 encoder: four residual blocks of ``channels`` times 1, 2.5, 5 and 10, then global average pooling.

    [N, C, H, W] -> [N, 10 · channels]; 64 channels give the usual widths 64, 160, 320, 640.

    Source: Oreshkin et al., "TADAM", NeurIPS 2018, for the blocks; Lee et al., "Meta-Learning with Differentiable
    Convex Optimization", CVPR 2019, for these widths. Deviations: dropout in place of DropBlock, and global average
    pooling in place of the flattened last 5×5 map.
    """
    widths = [channels, channels * 5 // 2, channels * 5, channels * 10]
    blocks = [
        ResNet12Block(before, width, dropout) for before, width in zip([in_channels, *widths[:-1]], widths, strict=True)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
