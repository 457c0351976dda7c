"""Base classes of the memory layers: residual modules around one op, each with its own part of the state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from srwm_agents.ops.checks import checked_resets
from srwm_agents.ops.triton_support import state_dtype

LayerState = tuple[Tensor, ...]


class MemoryLayer(nn.Module):
    """A module [B, T, hidden] -> [B, T, hidden] with memory; subclasses set ``state_shapes`` and implement ``forward``.

    ``state_shapes`` are the shapes of the layer's state tensors without the batch dimension. All-zero tensors of these
    shapes are a fresh episode.
    """

    state_shapes: tuple[tuple[int, ...], ...] = ()
    state_names: tuple[str, ...] = ()
    """What each state tensor is, for whoever looks at a state."""

    def slow_weights(self) -> dict[str, Tensor]:
        """Trained weights that a state tensor is the shift from, without the batch dimension, by ``state_names``."""
        return {}

    def choices(self, h: Tensor, state: LayerState, resets: Tensor | None = None) -> dict[str, Tensor]:
        """What the layer chooses at one step, recomputed; nothing is changed.

        Args:
            h: [B, 1, hidden], as :meth:`forward` gets it.
            state: the state before the step.
            resets: [B, 1]; True zeroes the state first.

        Returns:
            Queries "q" and keys "k" [B, H, D], and learning rates "b" [B, H, R] (of an SRWM's blocks y, q, k, b), those
            that the layer has; in the state's dtype.
        """
        return {}

    def forward(
        self, h: Tensor, state: LayerState | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        """Run over time.

        Args:
            h: [B, T, hidden].
            state: tensors of ``state_shapes`` with a leading B; None for fresh episodes.
            resets: bool [B, T]; True zeroes the state *before* step t, whatever is in it. Of numbers, any but 0 is
                True.

        Returns:
            [B, T, hidden] and the state after the last step.
        """
        raise NotImplementedError


class ResidualLayer(MemoryLayer):
    """Base of the memory layers: norm, mixing over time, dropout, residual.

    Subclasses implement :meth:`mix`, which turns the (normed) hidden vector into what is added to it, and the next
    state; :meth:`read_out`, between the two, is nothing here.
    """

    def __init__(self, hidden_size: int, *, input_norm: bool, dropout: float) -> None:
        """``input_norm``: a layer norm before the mixing; ``dropout``: on what is added to the residual stream."""
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size) if input_norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch_size: int) -> LayerState:
        """Zeros of ``state_shapes`` with a leading ``batch_size``: float32, or float64 in a float64 module."""
        weight = next(self.parameters())
        return tuple(weight.new_zeros(batch_size, *shape, dtype=state_dtype(weight)) for shape in self.state_shapes)

    def forward(
        self, h: Tensor, state: LayerState | None = None, resets: Tensor | None = None
    ) -> tuple[Tensor, LayerState]:
        resets = checked_resets(resets, h)
        mixed, state = self.mix(self.norm(h), self.initial_state(len(h)) if state is None else state, resets)
        return h + self.dropout(self.read_out(mixed)), state

    def mix(self, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
        """h [B, T, hidden] and bool resets -> what :meth:`read_out` takes, and the next state."""
        raise NotImplementedError

    def read_out(self, mixed: Tensor) -> Tensor:
        """:meth:`mix`'s output -> [B, T, hidden]."""
        return mixed


class HeadsLayer(ResidualLayer):
    """Base of the multi-head memory layers: :meth:`mix` gives [B, T, H, D], which a linear map reads out."""

    def __init__(self, hidden_size: int, num_heads: int, *, input_norm: bool, dropout: float) -> None:
        """``hidden_size`` must be a multiple of ``num_heads``; each head is D = hidden_size / num_heads wide."""
        super().__init__(hidden_size, input_norm=input_norm, dropout=dropout)
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size is {hidden_size}, expected a multiple of num_heads = {num_heads}")
        self.num_heads = num_heads
        self.head_size = hidden_size // num_heads
        self.project = nn.Linear(hidden_size, hidden_size, bias=False)

    def read_out(self, mixed: Tensor) -> Tensor:
        return self.project(mixed.flatten(-2))

    def heads(self, h: Tensor) -> Tensor:
        """[B, T, hidden] -> [B, T, H, D]."""
        return h.unflatten(-1, (self.num_heads, self.head_size))


Step = Callable[[Tensor, LayerState, Tensor | None], tuple[Tensor, LayerState]]


def detached_steps(step: Step, h: Tensor, state: LayerState, resets: Tensor | None) -> tuple[Tensor, LayerState]:
    """Call ``step`` on one time step after another and detach the state between them.

    This is what the published RL agents did. Because an SRWM's output is read before its update, the weights that make
    queries, keys and learning rates then receive exactly zero gradient; it is here for comparison only.
    """
    outputs = []
    splits = h.split(1, dim=1)  # a single empty one if T = 0
    parts = [None] * len(splits) if resets is None else resets.split(1, dim=1)
    for now, reset in zip(splits, parts, strict=True):
        y, state = step(now, state, reset)
        state = tuple(part.detach() for part in state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def zeroed(state: LayerState, resets: Tensor | None) -> LayerState:
    """The state that a single step begins with: zeros where ``resets`` [B, 1] is True, whatever is there."""
    if resets is None:
        return state
    first = resets[:, 0].bool()
    return tuple(part.masked_fill(first.view(-1, *(1,) * (part.dim() - 1)), 0) for part in state)
