"""Max-pooling by two with overlap, as the IMPALA encoder does it."""

from srwm_agents.ops.max_pool.dispatch import max_pool

__all__ = ["max_pool"]
