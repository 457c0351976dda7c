"""An image encoder's first layer in one pass: bytes, convolution, max-pooling."""

from srwm_agents.ops.conv_pool.dispatch import conv_pool

__all__ = ["conv_pool"]
