"""The self-referential weight matrix; derivation of its gradient in this folder's README."""

from srwm_agents.ops.checks import MEMORY_BACKENDS as BACKENDS
from srwm_agents.ops.srwm.dispatch import read_step, srwm
from srwm_agents.ops.srwm.types import SRWMState, SRWMWeights, zero_state

__all__ = ["BACKENDS", "SRWMState", "SRWMWeights", "read_step", "srwm", "zero_state"]
