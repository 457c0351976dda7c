"""Image augmentation on the device: random shift, flip, crop and colour jitter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

ASPECT = 4 / 3
"""Largest ratio of a crop's longer to its shorter side."""
_GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of images, each drawn independently; the default is the identity."""

    shift: int = 0
    """Largest shift in pixels in each direction; the edge is repeated."""
    flip: bool = False
    """Whether half of the images are mirrored left to right."""
    crop: float = 1.0
    """Smallest share of the image's area in a random crop, which is resized to the whole image; 1: no crop."""
    colour: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a factor in 1 ± this."""

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"shift is {self.shift}, expected at least 0")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}, expected 0 < crop <= 1")
        if not 0 <= self.colour <= 1:
            raise ValueError(f"colour is {self.colour}, expected 0 <= colour <= 1")

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment uint8 images [M, C, H, W]; same shape, dtype and device, without a host sync."""
        if self.crop < 1:
            images = self._crop(images, generator)
        elif self.shift or self.flip:
            images = self._shift_and_flip(images, generator)
        if self.colour > 0:
            images = self._jitter_colour(images, generator)
        return images

    def _shift_and_flip(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Shift and mirror in whole pixels, without interpolation."""
        number, channels, height, width = images.shape
        options = {"device": images.device, "generator": generator}
        shifts = torch.randint(-self.shift, self.shift + 1, (2, number, 1), **options)
        down = (torch.arange(height, device=images.device) + shifts[0]).clamp(0, height - 1)
        right = (torch.arange(width, device=images.device) + shifts[1]).clamp(0, width - 1)
        if self.flip:
            right = torch.where(torch.rand(number, 1, **options) < 0.5, width - 1 - right, right)
        rows = torch.arange(number, device=images.device)[:, None, None, None]
        planes = torch.arange(channels, device=images.device)[:, None, None]
        return images[rows, planes, down[:, None, :, None], right[:, None, None, :]]

    def _crop(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Crop, shift and mirror by bilinear interpolation.

        Area and aspect are drawn as in "Going deeper with convolutions" (Szegedy et al., CVPR 2015, section 6), the
        area uniform, the aspect log-uniform; a side longer than the image's is cut to it.
        """
        number, _, height, width = images.shape
        options = {"device": images.device, "generator": generator}
        area = self.crop + (1 - self.crop) * torch.rand(number, 1, **options)
        aspect = torch.exp((2 * torch.rand(number, 1, **options) - 1) * math.log(ASPECT) / 2)
        where = []
        for share, size in ((area.sqrt() * aspect, width), (area.sqrt() / aspect, height)):
            share = share.clamp(max=1.0)
            # In grid_sample's coordinates the image is [-1, 1], and pixel centres are 1 / size - 1 to 1 - 1 / size.
            middle = (1 - share) * (2 * torch.rand(number, 1, **options) - 1)
            middle = middle + 2 * self.shift / size * (2 * torch.rand(number, 1, **options) - 1)
            where.append(middle + share * ((2 * torch.arange(size, device=images.device) + 1) / size - 1))
        across, down = where
        if self.flip:
            across = torch.where(torch.rand(number, 1, **options) < 0.5, across.flip(1), across)
        across, down = across[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)
        grid = torch.stack([across, down], dim=-1)
        sampled = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
        return sampled.round().to(torch.uint8)

    def _jitter_colour(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        options = {"device": images.device, "generator": generator}
        factors = 1 + self.colour * (2 * torch.rand(3, len(images), 1, 1, 1, **options) - 1)
        pixels = images.float() * factors[0]
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = mean + factors[1] * (pixels - mean)
        if images.shape[1] == 3:
            grey = sum(weight * pixels[:, i : i + 1] for i, weight in enumerate(_GREY))
            pixels = grey + factors[2] * (pixels - grey)
        return pixels.clamp(0, 255).round().to(torch.uint8)
