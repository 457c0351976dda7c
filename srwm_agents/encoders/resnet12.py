"""ResNet-12: the deeper encoder of few-shot learning."""

from __future__ import annotations

from torch import Tensor, nn


class ResNet12Block(nn.Module):
    """Three 3×3 convolutions with batch norm, a projected shortcut, and 2×2 max-pool: [N, C, H, W] -> half the size."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        width = in_channels
        for _ in range(3):
            convs += [
                nn.Conv2d(width, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.LeakyReLU(0.1),
            ]
            width = channels
        self.convs = nn.Sequential(*convs[:-1])  # the last activation comes after the sum
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.out = nn.Sequential(nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.convs(x) + self.shortcut(x))


def resnet12(in_channels: int, *, channels: int = 64, dropout: float = 0.0) -> nn.Sequential:
    """Four residual blocks of ``channels`` times 1, 2.5, 5 and 10, then the mean over the image.

    [N, C, H, W] -> [N, 10 · channels]; 64 channels give the usual widths 64, 160, 320, 640.

    Source: Oreshkin et al., "TADAM", NeurIPS 2018, for the blocks; Lee et al., "Meta-Learning with Differentiable
    Convex Optimization", CVPR 2019, for these widths. Deviations: dropout in the place of DropBlock, and
    the mean over the image in the place of its last 5×5 map.
    """
    widths = [channels, channels * 5 // 2, channels * 5, channels * 10]
    blocks = [
        ResNet12Block(before, width, dropout) for before, width in zip([in_channels, *widths[:-1]], widths, strict=True)
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
