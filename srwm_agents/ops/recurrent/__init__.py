"""The LSTM's and the GRU's recurrence over time, with resets."""

from srwm_agents.ops.recurrent.dispatch import gru, lstm

__all__ = ["gru", "lstm"]
