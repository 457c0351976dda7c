"""3×3 convolutions of few channels in bfloat16, and the residual block of image encoders made of two of them."""

from srwm_agents.ops.conv3x3.dispatch import conv3x3, residual_block

__all__ = ["conv3x3", "residual_block"]
