"""Batch norm with what usually follows it: a residual, an activation, 2×2 max-pooling."""

from srwm_agents.ops.norm_pool.dispatch import norm_pool

__all__ = ["norm_pool"]
