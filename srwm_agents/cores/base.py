"""The one interface of every recurrent core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.cores.config import CoreConfig


class Core(nn.Module):
    """A recurrent core: ``initial_state`` and one call over time, with resets and a differentiable final state.

    The state is one flat float32 tensor [B, state_size] in which all zeros mean a fresh episode.
    """

    state_size: int
    """Floats of state per episode."""

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parts that the flat state is made of, in order and without the batch dimension; a
        :class:`StateCodec` of them cuts it up and puts it together. () for a core without memory.
        """
        return ()

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        self.config = config
        self.input_size = config.input_size
        self.output_size = config.hidden_size

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> Tensor:
        """Zeros [batch_size, state_size], on the parameters' device unless another is named."""
        device = next(self.parameters()).device if device is None else device
        return torch.zeros(batch_size, self.state_size, device=device)

    def forward(self, x: Tensor, state: Tensor, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over time.

        Args:
            x: [B, T, input_size]; T = 1 for acting.
            state: [B, state_size].
            resets: bool [B, T]; True zeroes the state *before* step t.

        Returns:
            out [B, T, output_size] and the state after the last step, [B, state_size].

        Raises:
            ValueError: a wrong shape, naming the expected one; tensors on different devices.
        """
        if x.dim() != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {list(x.shape)}, expected [B, T, {self.input_size}]")
        if state.shape != (x.shape[0], self.state_size):
            raise ValueError(f"state has shape {list(state.shape)}, expected [{x.shape[0]}, {self.state_size}]")
        if resets is not None and resets.shape != x.shape[:2]:
            raise ValueError(f"resets has shape {list(resets.shape)}, expected {list(x.shape[:2])}")
        for name, tensor in (("state", state), ("resets", resets), ("the core", next(self.parameters()))):
            if tensor is not None and tensor.device != x.device:
                raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}: they must be on one device")
        return self.run(x, state, resets)

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """The subclass's computation, on checked arguments."""
        raise NotImplementedError
