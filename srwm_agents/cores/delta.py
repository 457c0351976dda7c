"""A stack of DeltaNet layers."""

from __future__ import annotations

from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.stack import StackCore
from srwm_agents.layers import DeltaLayer


class DeltaCore(StackCore):
    """Fast weight matrices programmed by slow nets; Schlag et al., ICML 2021."""

    def make_layer(self, config: CoreConfig) -> DeltaLayer:
        return DeltaLayer(
            config.hidden_size,
            config.num_heads,
            input_norm=config.input_norm,
            dropout=config.dropout,
            backend=config.backend,
        )
