"""From observations to feature vectors."""

from srwm_agents.encoders.image import ACTIVATIONS, ENCODERS, ImageEncoder
from srwm_agents.encoders.normalizer import ObservationNormalizer
from srwm_agents.encoders.observation import IMAGE_KEY, ObservationEncoder

__all__ = ["ACTIVATIONS", "ENCODERS", "IMAGE_KEY", "ImageEncoder", "ObservationEncoder", "ObservationNormalizer"]
