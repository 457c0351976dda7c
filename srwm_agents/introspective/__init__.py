"""Schmidhuber's introspective net (ICANN 1993), which reads and rewrites its own weights, with its exact gradient."""

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
