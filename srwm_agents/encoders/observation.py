"""Encoder of dict observations: image features concatenated with the other entries."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srwm_agents.encoders.image import ImageEncoder

IMAGE_KEY = "obs"


class ObservationEncoder(nn.Module):
    """{"obs": image, extras…} -> [N, output_size]; the image through an :class:`ImageEncoder`, extras as they are.

    For Procgen the extras are ``last_reward`` [N, 1] and, if the agent wants it, ``last_action`` [N, 15].
    """

    def __init__(self, image: ImageEncoder, extras: Mapping[str, int]) -> None:
        """``extras`` maps the other observations' names to their widths, in the order in which they are joined."""
        super().__init__()
        self.image = image
        self.extras = dict(extras)
        self.output_size = image.output_size + sum(self.extras.values())

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        features = self.image(observation[IMAGE_KEY])
        return torch.cat([features, *(observation[name].float() for name in self.extras)], dim=1)
