"""The gated delta rule."""

from srwm_agents.ops.gated_delta.dispatch import gated_delta_rule

__all__ = ["gated_delta_rule"]
