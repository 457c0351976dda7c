"""The delta rule: the fast weight matrix behind DeltaNet and SR-Delta."""

from srwm_agents.ops.delta.dispatch import delta_rule

__all__ = ["delta_rule"]
