"""Pure functions on tensors: no parameters, no modules, no global state."""

from srwm_agents.ops.checks import BackendUnavailableError
from srwm_agents.ops.conv3x3 import conv3x3, residual_block
from srwm_agents.ops.delta import delta_rule
from srwm_agents.ops.gated_delta import gated_delta_rule
from srwm_agents.ops.linear_scan import linear_scan
from srwm_agents.ops.max_pool import max_pool
from srwm_agents.ops.mlstm import MLSTMState, mlstm
from srwm_agents.ops.norm_pool import norm_pool
from srwm_agents.ops.recurrent import gru, lstm
from srwm_agents.ops.srwm import SRWMState, SRWMWeights, srwm

__all__ = [
    "BackendUnavailableError",
    "MLSTMState",
    "SRWMState",
    "SRWMWeights",
    "conv3x3",
    "delta_rule",
    "gated_delta_rule",
    "gru",
    "linear_scan",
    "lstm",
    "max_pool",
    "mlstm",
    "norm_pool",
    "residual_block",
    "srwm",
]
