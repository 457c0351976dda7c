"""The interface of every recurrent core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srwm_agents.cores.config import CoreConfig
from srwm_agents.layers import MemoryLayer


class Core(nn.Module):
    """A recurrent core: ``initial_state`` and one call over time, with resets and a differentiable final state.

    The state is one flat tensor [B, state_size]; all zeros are a fresh episode. :meth:`initial_state` has the dtype of
    the parameters (float32 also under autocast); a call returns a state of the dtype that it was given. Memory layers
    of a bfloat16 core, except an LSTM or a GRU, compute in float32, so a float32 state keeps its precision from call to
    call.
    """

    state_size: int
    """Numbers of state per episode."""

    @property
    def state_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parts that the flat state is made of, in order and without the batch dimension; a
        :class:`StateCodec` of them unpacks and packs it. () for a core without memory.
        """
        return ()

    def layer_states(self, state: Tensor) -> list[dict[str, Tensor]]:
        """A flat state as the layers have it, for whoever looks at it: views, not to be written to.

        Args:
            state: [B, state_size].

        Returns:
            One dict a layer with memory: the name of a state tensor -> [B, …]. Of an SRWM's layer "y", "q", "k", "b",
            each [B, H, D, …], the shift of a block from its slow weights (the layer's ``slow_weights()``). [] without
            memory.
        """
        return []

    @property
    def memory_layers(self) -> list[MemoryLayer]:
        """The layers whose states :meth:`layer_states` gives, in its order; [] where these are PyTorch's own."""
        return []

    def __init__(self, config: CoreConfig) -> None:
        super().__init__()
        self.config = config
        self.input_size = config.input_size
        self.output_size = config.hidden_size

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> Tensor:
        """Zeros [batch_size, state_size] in the parameters' dtype, on their device unless another is named."""
        like = next(self.parameters())
        return torch.zeros(
            batch_size, self.state_size, device=like.device if device is None else device, dtype=like.dtype
        )

    def forward(self, x: Tensor, state: Tensor | None = None, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over time.

        Args:
            x: [B, T, input_size]; T = 1 for acting.
            state: [B, state_size], of any floating dtype; None begins fresh episodes.
            resets: [B, T], bool, integer or float; True or nonzero zeroes the state *before* step t, whatever the
                state holds there, NaN included. None: no resets.

        Returns:
            out [B, T, output_size] and the state after the last step, [B, state_size], in the given state's dtype.

        Raises:
            ValueError: a wrong shape or dtype, with the expected one; tensors on different devices.
        """
        if x.dim() != 3 or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {list(x.shape)}, expected [B, T, {self.input_size}]")
        if state is None:
            state = self.initial_state(x.shape[0], x.device)
        self._check(x, state, resets)
        if resets is not None and resets.dtype != torch.bool:
            resets = resets != 0
        dtype = next(self.parameters()).dtype
        out, final = self.run(x, state.to(torch.float32 if dtype == torch.bfloat16 else dtype), resets)
        return out, final.to(state.dtype)

    def run(self, x: Tensor, state: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """The subclass's computation, on checked arguments: ``state`` in the parameters' dtype, float32 if that is
        bfloat16; ``resets`` of bool.
        """
        raise NotImplementedError

    def _check(self, x: Tensor, state: Tensor, resets: Tensor | None) -> None:
        if state.shape != (x.shape[0], self.state_size):
            raise ValueError(f"state has shape {list(state.shape)}, expected [{x.shape[0]}, {self.state_size}]")
        if not state.is_floating_point():
            raise ValueError(f"state is {state.dtype}, expected a floating-point dtype")
        if resets is not None and resets.shape != x.shape[:2]:
            raise ValueError(f"resets has shape {list(resets.shape)}, expected {list(x.shape[:2])}")
        if resets is not None and resets.is_complex():
            raise ValueError(f"resets is {resets.dtype}, expected bool, integer or float")
        for name, tensor in (("state", state), ("resets", resets), ("the core", next(self.parameters()))):
            if tensor is not None and tensor.device != x.device:
                raise ValueError(f"{name} is on {tensor.device}, but x is on {x.device}: they must be on one device")
