"""Observation normalisation with fixed statistics, for agents trained on normalised observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from srwm_agents.encoders.observation import IMAGE_KEY


class ObservationNormalizer(nn.Module):
    """Observation normaliser: fixed shift and scale of the image, then (x - mean) / sqrt(var + eps) clipped to ±clip.

    The same arithmetic as Sample Factory's normaliser in evaluation mode (``--obs_subtract_mean``, ``--obs_scale``,
    ``--normalize_input``), so that an exported agent gets the inputs it was trained on. The default is the identity.
    """

    eps = 1e-5
    clip = 5.0

    def __init__(
        self, subtract_mean: float = 0.0, scale: float = 1.0, running: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """``running`` maps the names of entries that have mean and variance to their shapes."""
        super().__init__()
        self.subtract_mean, self.scale = subtract_mean, scale
        self.running = dict(running or {})
        for name, shape in self.running.items():
            self.register_buffer(f"{name}_mean", torch.zeros(*shape))
            self.register_buffer(f"{name}_var", torch.ones(*shape))

    def forward(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = dict(observation)
        if self.subtract_mean != 0.0 or self.scale != 1.0:
            out[IMAGE_KEY] = (out[IMAGE_KEY].float() - self.subtract_mean) / self.scale
        for name in self.running:
            mean, var = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_var")
            normalised = (out[name].float() - mean) / torch.sqrt(var + self.eps)
            out[name] = normalised.clamp(-self.clip, self.clip)
        return out
