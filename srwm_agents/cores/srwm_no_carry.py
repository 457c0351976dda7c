"""SRWM without carry-over: the state is dropped after each rollout."""

from __future__ import annotations

import torch
from torch import Tensor

from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.srwm import SRWMCore


class SRWMNoCarryCore(SRWMCore):
    """An SRWM that never remembers more than ``rollout_length`` steps; Irie et al., ICML 2022, section 4.3.

    The last float of the flat state counts the steps since the episode began; the state is dropped whenever the
    count is a multiple of ``rollout_length``. Acting step by step and learning on a whole rollout thus drop it at the
    same steps. Deviation: the paper drops the state at the trainer's rollout boundaries, which coincide with ours
    until the first episode ends; counting from the episode's beginning makes the policy a function of the episode
    alone, so that evaluation needs no trainer.
    """

    def __init__(self, config: CoreConfig) -> None:
        super().__init__(config)
        self.state_size += 1

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        return (*super().state_shapes, (1,))

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        shift, count = state[:, :-1], state[:, -1]
        batch, steps = x.shape[:2]
        resets = torch.zeros(batch, steps, dtype=torch.bool, device=x.device) if resets is None else resets
        # Steps since the episode began, before each step: continues the count until the first reset in the row.
        index = torch.arange(steps, device=x.device)
        last_reset = torch.where(resets, index, -1)
        if steps > 1:  # a single step has none before it, and ONNX, to which single steps are exported, has no cummax
            last_reset = last_reset.cummax(dim=1).values
        age = torch.where(last_reset >= 0, index - last_reset, index + count.long()[:, None])
        out, shift = super().run(x, shift, resets | (age % self.config.rollout_length == 0))
        count = (age[:, -1] + 1).to(state.dtype) if steps else count
        return out, torch.cat([shift, count[:, None]], dim=1)
