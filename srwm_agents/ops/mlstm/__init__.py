"""xLSTM's matrix memory."""

from srwm_agents.ops.mlstm.dispatch import mlstm
from srwm_agents.ops.mlstm.naive import MLSTMState

__all__ = ["MLSTMState", "mlstm"]
