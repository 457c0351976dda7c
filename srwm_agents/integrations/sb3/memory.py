"""Adapter: a core behind the interface of the LSTM that sb3-contrib expects."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from srwm_agents.cores import make_core

LSTMStates = tuple[Tensor, Tensor]


class LSTMLikeCore(nn.Module):
    """A core of the registry whose flat state travels as an LSTM's (h, c).

    sb3-contrib sizes its buffers by ``num_layers`` and ``hidden_size``. We say one layer of half the flat state: h is
    its first half and c its second, each [1, envs, hidden_size], with one float of padding where the state is odd.
    """

    num_layers = 1

    def __init__(self, name: str, input_size: int, settings: dict[str, Any]) -> None:
        """Arguments as of :func:`srwm_agents.cores.make_core`; ValueError likewise."""
        super().__init__()
        self.core = make_core(name, input_size=input_size, **settings)
        self.input_size = input_size
        self.hidden_size = (self.core.state_size + 1) // 2

    def forward(self, features: Tensor, states: LSTMStates, episode_starts: Tensor) -> tuple[Tensor, LSTMStates]:
        """Run over time, all sequences and steps in one call: an episode's start is a reset inside the op.

        Args:
            features: [sequences * T, input_size], the steps of a sequence side by side.
            states: (h, c), each [1, sequences, hidden_size].
            episode_starts: [sequences * T], nonzero where the state is to be forgotten *before* the step.

        Returns:
            out [sequences * T, output_size] and (h, c) after the last step.

        Raises:
            ValueError: states or episode starts that do not fit the features.
        """
        check_states(states, (1, states[0].shape[1], self.hidden_size))
        sequences = states[0].shape[1]
        if len(features) != episode_starts.numel() or len(features) % sequences:
            raise ValueError(
                f"features of {len(features)} steps with {episode_starts.numel()} episode starts and the states of "
                f"{sequences} sequences, expected as many starts as steps and a multiple of the sequences"
            )
        x = features.reshape(sequences, -1, self.input_size)
        out, flat = self.core(x, self._flat(states), episode_starts.reshape(sequences, -1))
        return out.flatten(0, 1), self._halves(flat)

    def _flat(self, states: LSTMStates) -> Tensor:
        return torch.cat([part[0] for part in states], dim=1)[:, : self.core.state_size]

    def _halves(self, flat: Tensor) -> LSTMStates:
        h, c = functional.pad(flat, (0, 2 * self.hidden_size - flat.shape[1]))[None].chunk(2, dim=2)
        return h.contiguous(), c.contiguous()


def check_states(states: LSTMStates, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless h and c have ``shape``: (1, envs, hidden_size)."""
    for name, part in zip(("h", "c"), states, strict=True):
        if tuple(part.shape) != shape:
            raise ValueError(f"state {name} has shape {list(part.shape)}, expected {list(shape)} = [1, envs, hidden]")
