"""The self-referential weight matrix; derivation of its gradient in this folder's README."""

from srwm_agents.ops.srwm.dispatch import BACKENDS, srwm, srwm_step_
from srwm_agents.ops.srwm.types import SRWMState, SRWMWeights, zero_state

__all__ = ["BACKENDS", "SRWMState", "SRWMWeights", "srwm", "srwm_step_", "zero_state"]
