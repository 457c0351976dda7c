"""A stack of Fake SR layers."""

from __future__ import annotations

from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.stack import StackCore
from srwm_agents.layers import FakeSRLayer


class FakeSRCore(StackCore):
    """The SRWM stack without self-modification, and so without memory; Irie et al., ICML 2022, section 4."""

    def make_layer(self, config: CoreConfig) -> FakeSRLayer:
        return FakeSRLayer(
            config.hidden_size,
            config.num_heads,
            input_softmax=config.input_softmax,
            input_norm=config.input_norm,
            dropout=config.dropout,
        )
