"""The core that this project is about: a stack of self-referential weight matrices."""

from __future__ import annotations

from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.stack import StackCore
from srwm_agents.layers import SRWMLayer


class SRWMCore(StackCore):
    """SRWM layers and feed-forward blocks; Irie et al., ICML 2022, section 4 and appendix."""

    layer: type[SRWMLayer] = SRWMLayer
    """What the stack is made of."""

    def make_layer(self, config: CoreConfig) -> SRWMLayer:
        return self.layer(
            config.hidden_size,
            config.num_heads,
            input_softmax=config.input_softmax,
            input_norm=config.input_norm,
            beta_mean=config.beta_mean,
            query_scale=config.query_scale,
            state_decay=config.state_decay,
            state_limit=config.state_limit,
            unit_keys=config.unit_keys,
            dropout=config.dropout,
            detach_state_every_step=config.detach_state_every_step,
            backend=config.backend,
        )
