"""Conv-4: the small image encoder of few-shot learning."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.encoders.norm_pool import NormPool


class Conv4Block(nn.Module):
    """3×3 convolution, batch norm, ReLU, 2×2 max-pool, dropout: [N, C, H, W] -> [N, channels, H // 2, W // 2].

    The convolution has no bias, which the norm would cancel.
    """

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = NormPool(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(x)))


def conv4(in_channels: int, *, channels: int = 64, dropout: float = 0.0) -> nn.Sequential:
    """Conv-4 encoder: four :class:`Conv4Block` and a flatten.

    [N, C, H, W] -> [N, channels · (H // 16) · (W // 16)]: 64 for 28×28 and 64 channels, 800 for 84×84 and 32.

    Source: Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016, section 4.1; with 32 channels for
    mini-ImageNet as in Ravi & Larochelle, ICLR 2017.
    """
    blocks = [Conv4Block(in_channels if i == 0 else channels, channels, dropout) for i in range(4)]
    return nn.Sequential(*blocks, nn.Flatten())
