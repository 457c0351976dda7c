"""The IMPALA encoder: 15 convolutions in three residual sections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from srwm_agents.ops.conv3x3 import conv3x3, residual_block
from srwm_agents.ops.max_pool import max_pool


class ConvPool(nn.Module):
    """A 3×3 convolution, then max-pooling by two: [N, C, H, W] -> [N, out_channels, (H + 1) // 2, (W + 1) // 2]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    @staticmethod
    def takes_bytes(image: Tensor) -> bool:
        """Whether ``forward`` takes a uint8 image undivided: on CUDA under bfloat16 autocast, which is exact."""
        autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda") == torch.bfloat16
        return image.is_cuda and autocast

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        if x.dtype == torch.uint8:  # exact in bfloat16, where a quotient by 255 would be rounded
            x, weight = x.to(torch.bfloat16, memory_format=torch.channels_last), weight / 255
        return max_pool(conv3x3(x, weight, self.conv.bias))


class ResidualBlock(nn.Module):
    """Residual block x + conv(relu(conv(relu(x)))), same shape out."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
            activation(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        activation, first, _, second = self.convs
        if not isinstance(activation, nn.ReLU):
            return x + self.convs(x)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        assert first.bias is not None
        assert second.bias is not None
        return residual_block(x, first.weight, first.bias, second.weight, second.bias)


def impala_convs(in_channels: int, channels: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """IMPALA's convolutions: sections of convolution, max-pool and two residual blocks, then the activation.

    Source: Espeholt et al., ICML 2018 (arXiv:1802.01561), figure 3, right; channels 16, 32, 32 as in Procgen's
    baselines (Cobbe et al., ICML 2020).
    """
    layers: list[nn.Module] = []
    for out_channels in channels:
        layers += [
            ConvPool(in_channels, out_channels),
            ResidualBlock(out_channels, activation),
            ResidualBlock(out_channels, activation),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers, activation())
