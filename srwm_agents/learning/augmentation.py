"""Image augmentation for the learner: random shifts, one a trajectory.

The behaviour policy acts on unshifted images. ``--augment_shift`` alone trains on shifted ones in their place, so that
the ratios pi / mu differ from 1 even without policy lag, and vary with the shift. V-trace (clipped above) and PPO
(clipped on both sides) treat that as lag: the estimate is biased and its effective step smaller. Raileanu et al.
(NeurIPS 2021, arXiv:2006.12862) make that argument for PPO. Their remedy, DrAC, is ``--augment_consistency`` (0.1
there): ratios, targets and all other losses come from unshifted images, and an additional term, which costs a second
pass, asks for the same policy and value on shifted ones. Watch ``ratio_min`` and ``ratio_max`` in the summaries.

In both cases the state before a trajectory's first step comes from unshifted images.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift_images(images: Tensor, limit: int) -> Tensor:
    """Shift each trajectory's images by up to ``limit`` pixels up or down and left or right, repeating the edge.

    Source: DrQ's random shift (Yarats, Kostrikov and Fergus, ICLR 2021, arXiv:2004.13649), 4 pixels there.
    Deviation: all images of a trajectory get the same shift, because a recurrent policy must see a steady scene.

    Shifts are whole pixels, drawn by the device's generator, so that each replay of a captured update draws new ones.

    Args:
        images: [B, T, C, H, W], bytes or floats.
        limit: largest shift in pixels, at least 0.

    Returns:
        a new tensor of the same shape and dtype.
    """
    batch, _, _, height, width = images.shape
    shifts = torch.randint(-limit, limit + 1, (2, batch, 1), device=images.device)
    rows = (torch.arange(height, device=images.device) + shifts[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + shifts[1]).clamp(0, width - 1)
    shifted = images.gather(3, rows[:, None, None, :, None].expand_as(images))
    return shifted.gather(4, columns[:, None, None, None, :].expand_as(images))
