"""An elementwise linear recurrence over time."""

from srwm_agents.ops.linear_scan.dispatch import linear_scan

__all__ = ["linear_scan"]
