"""No memory at all: the baseline that shows what memory is worth."""

from __future__ import annotations

from torch import Tensor, nn

from srwm_agents.cores.base import Core
from srwm_agents.cores.config import CoreConfig
from srwm_agents.layers import FeedForwardBlock


class FeedForwardCore(Core):
    """Linear input, then feed-forward blocks; state_size is 0."""

    state_size = 0

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.input_size, config.hidden_size)
        self.blocks = nn.Sequential(
            *(FeedForwardBlock(config.hidden_size, config.ff_size, config.dropout) for _ in range(config.num_layers))
        )

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.blocks(self.embed(x)), state
