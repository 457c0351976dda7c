"""Images that are moved a little each time they are learned from.

Who acted saw them as they are. Learned from in place of those (``--augment_shift`` alone), moved ones give the actions
another probability than the learner's policy gives them on what was acted on: the ratios pi / mu are not 1 even when
nobody is behind, and vary with the move. V-trace (clipping above) and PPO (clipping both ways) take that for lag, so
the estimate is biased and its effective step smaller; Raileanu et al. (NeurIPS 2021, arXiv:2006.12862) make that
argument for PPO. Their way out, DrAC, is ``--augment_consistency`` (0.1 there): ratios, targets and the rest of
the loss from images as they are, and one term more that asks for the same policy and value on moved ones, at the price
of a second pass. Watch ``ratio_min`` and ``ratio_max`` in the summaries.

With either, the state before a trajectory's first step is the one that images as they are had led to.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shift_images(images: Tensor, limit: int) -> Tensor:
    """Move each trajectory's images by up to ``limit`` pixels up or down and left or right, repeating the edge.

    Source: DrQ's random shift (Yarats, Kostrikov and Fergus, ICLR 2021, arXiv:2004.13649), 4 pixels there.
    Deviation: all images of a trajectory move alike, not each by itself, because a memory must see a world that holds
    still.

    The moves are whole pixels, drawn on the images' device by its generator, so that each replay of a captured update
    draws new ones.

    Args:
        images: [B, T, C, H, W], bytes or floats.
        limit: at least 0.

    Returns:
        the same shape and dtype, in memory of its own.
    """
    batch, _, _, height, width = images.shape
    moves = torch.randint(-limit, limit + 1, (2, batch, 1), device=images.device)
    down = (torch.arange(height, device=images.device) + moves[0]).clamp(0, height - 1)
    right = (torch.arange(width, device=images.device) + moves[1]).clamp(0, width - 1)
    moved = images.gather(3, down[:, None, None, :, None].expand_as(images))
    return moved.gather(4, right[:, None, None, None, :].expand_as(images))
