"""The introspective net of 1993: it reads and rewrites its own weights, and has an exact gradient forward in time."""

from srwm_agents.introspective.bumps import BUMPS, Bump, Compact, Gaussian, make_bump
from srwm_agents.introspective.dynamics import Dynamics, Sequences, State
from srwm_agents.introspective.gradients import cheaper_gradient, forward_gradient, sequence_loss
from srwm_agents.introspective.net import IntrospectiveNet
from srwm_agents.introspective.wiring import Wiring

__all__ = [
    "BUMPS",
    "Bump",
    "Compact",
    "Dynamics",
    "Gaussian",
    "IntrospectiveNet",
    "Sequences",
    "State",
    "Wiring",
    "cheaper_gradient",
    "forward_gradient",
    "make_bump",
    "sequence_loss",
]
