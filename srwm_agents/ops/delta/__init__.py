"""The delta rule: the fast weight matrix behind DeltaNet and SR-Delta."""

from srwm_agents.ops.delta.dispatch import BACKENDS, delta_rule, delta_rule_step_

__all__ = ["BACKENDS", "delta_rule", "delta_rule_step_"]
