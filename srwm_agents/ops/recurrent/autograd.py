"""The LSTM and the GRU on Triton kernels: how they are launched, and the registered operators around them.

Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.recurrent.triton_kernels import (
    ROWS,
    gru_backward_kernel,
    gru_forward_kernel,
    lstm_backward_kernel,
    lstm_forward_kernel,
)
from srwm_agents.ops.transforms import Mapped, fold_all, one_by_one, transformable, unfold
from srwm_agents.ops.triton_support import contiguous, differentiable, on_device, padded, without_autocast

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_lstm_forward_kernel: Any = lstm_forward_kernel
_lstm_backward_kernel: Any = lstm_backward_kernel
_gru_forward_kernel: Any = gru_forward_kernel
_gru_backward_kernel: Any = gru_backward_kernel

TILE_BYTES = 2**15
"""Of W_hh, loaded at once, where the narrowest block allows. Shared memory holds ``STAGES - 1`` tiles, or one larger:
about 70 KiB, of the 99 that the smallest of NVIDIA's GPUs since Ampere have."""
STAGES = 3
MIN_BLOCK = 16
"""A tensor core's product takes no narrower block."""
MAX_COLUMNS = {True: 64, False: 32}
"""With more, registers do not suffice; by whether one gate is loaded at once. The backward kernels were fastest with 64
columns on an H200, of 16, 32 and 64 with 128 units."""


def _launch(hidden: int, gates: int) -> dict[str, Any]:
    """A kernel's constants and options, as keyword arguments, for H units. ``gates`` are the parts of W_hh that are
    loaded at once: all in a forward kernel, and one in a backward kernel, which sums over the gates.
    """
    block = max(MIN_BLOCK, padded(hidden))
    row_bytes = 4 * gates * block
    columns = max(MIN_BLOCK, min(TILE_BYTES // padded(gates * block * 4), MAX_COLUMNS[gates == 1], block))
    return {
        "H": hidden, "BH": block, "BK": columns, "STAGES": STAGES if columns * row_bytes <= TILE_BYTES else 2,
        "num_warps": max(4, block // 16),
    }  # fmt: skip


def _grid(x: Tensor) -> tuple[int]:
    return (math.ceil(len(x) / ROWS.value),)


def _lstm_forward(x, weight, bias, h, c, resets, y, final, saved) -> None:
    with on_device(x):
        _lstm_forward_kernel[_grid(x)](
            *contiguous(x, weight, bias, h, c, resets), y, final, saved, *x.shape[:2], **_launch(h.shape[1], 4)
        )


def _lstm_backward(weight, resets, saved, dy, dfinal, dx, dgates, dh, dc) -> None:
    with on_device(dy):
        _lstm_backward_kernel[_grid(dy)](
            *contiguous(weight, resets, saved, dy, dfinal), dx, dh, dc, *dy.shape[:2], **_launch(dy.shape[2], 1)
        )


def _gru_forward(x, weight, bias, h, c, resets, y, final, saved) -> None:
    with on_device(x):
        _gru_forward_kernel[_grid(x)](
            *contiguous(x, weight, bias, h, resets), y, saved, *x.shape[:2], **_launch(h.shape[1], 3)
        )


def _gru_backward(weight, resets, saved, dy, dfinal, dx, dgates, dh, dc) -> None:
    with on_device(dy):
        _gru_backward_kernel[_grid(dy)](
            *contiguous(weight, resets, saved, dy), dx, dgates, dh, *dy.shape[:2], **_launch(dy.shape[2], 1)
        )


class Cell(NamedTuple):
    """What differs between the two. What only an LSTM has is, of a GRU, None where given and empty where returned."""

    gates: int
    """Their number, G."""
    has_cell: bool
    """Whether there is a state c beside h."""
    saved: int
    """Numbers that the forward kernel saves of each unit and step: the last is h before the step, zero after a reset,
    the others are for the backward kernel."""
    forward: Callable[..., None]
    """(x, weight, bias, h, c, resets, y, final, saved or None): writes the last three."""
    backward: Callable[..., None]
    """(weight, resets, saved, dy, dfinal or None, dx, dgates, dh, dc): writes the last four."""


class Operators(NamedTuple):
    """A registered pair."""

    forward_op: Any
    forward: Callable[..., Any]
    """Called in the operator's place; see :func:`srwm_agents.ops.transforms.transformable`."""


def register(name: str, cell: Cell) -> Operators:
    """Register ``srwm_agents::{name}_forward`` and ``srwm_agents::{name}_backward``."""

    def forward_outputs(x: Tensor, h: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Empty y, final and saved."""
        batch, steps = x.shape[:2]
        hidden = h.shape[1]
        final = x.new_empty(h.shape if cell.has_cell else (0,))
        return x.new_empty(batch, steps, hidden), final, x.new_empty((*x.shape[:2], cell.saved * hidden) if save else 0)

    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, c: Tensor | None, resets: Tensor | None, save: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, G · H], weight [G · H, H], bias [G · H], h, c [B, H], resets [B, T] -> y [B, T, H], final (of c)
        [B, H], and saved [B, T, …], which is for the backward operator and empty unless ``save``."""
        y, final, saved = forward_outputs(x, h, save)
        cell.forward(x, weight, bias, h, c, resets, y, final, saved if save else None)
        return y, final, saved

    forward_op = torch.library.custom_op(f"srwm_agents::{name}_forward", forward, mutates_args=())

    @forward_op.register_fake
    def _(x, weight, bias, h, c, resets, save):
        return forward_outputs(x, h, save)

    def backward_outputs(saved: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Empty dx, dgates, dh and dc."""
        batch, steps, width = saved.shape
        hidden = width // cell.saved
        return (
            saved.new_empty(batch, steps, cell.gates * hidden),
            saved.new_empty(0 if cell.has_cell else (batch, steps, cell.gates * hidden)),
            saved.new_empty(batch, hidden),
            saved.new_empty((batch, hidden) if cell.has_cell else 0),
        )

    @torch.library.custom_op(f"srwm_agents::{name}_backward", mutates_args=())
    def backward_op(
        weight: Tensor, resets: Tensor | None, saved: Tensor, dy: Tensor | None, dfinal: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """dx and dgates [B, T, G · H], gradients of what x and what the state gives to the gates, dh and dc [B, H]; an
        LSTM's dgates, which are dx, and a GRU's dc are empty.

        ``dy`` and ``dfinal`` are the gradients of the forward operator's outputs, None for zeros.
        """
        dx, dgates, dh, dc = backward_outputs(saved)
        dy = saved.new_zeros(*saved.shape[:2], dh.shape[1]) if dy is None else dy
        cell.backward(weight, resets, saved, dy, dfinal, dx, dgates, dh, dc)
        return dx, dgates, dh, dc

    @backward_op.register_fake
    def _(weight, resets, saved, dy, dfinal):
        return backward_outputs(saved)

    def vmap_backward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        size = info.batch_size
        if mapped[0] is not None:  # the weights, which have no batch
            return one_by_one(call_backward, size, mapped, arguments)
        dx, dgates, dh, dc = call_backward(*fold_all(arguments, mapped, size, (None, *[0] * 4)))
        if cell.has_cell:
            return (unfold(dx, size, 0), dgates, unfold(dh, size, 0), unfold(dc, size, 0)), (0, None, 0, 0)
        return (unfold(dx, size, 0), unfold(dgates, size, 0), unfold(dh, size, 0), dc), (0, 0, 0, None)

    call_backward = transformable(backward_op, vmap=vmap_backward)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, weight, _, _, _, resets, ctx.save = inputs
        ctx.save_for_backward(weight, resets, output[-1])
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)

    def gradient(
        ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _dsaved: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if not ctx.save:
            raise RuntimeError(f"{name}_forward was called with save=False: it kept nothing to differentiate through")
        weight, resets, saved = ctx.saved_tensors
        dx, dgates, dh, dc = call_backward(weight, resets, saved, dy, dfinal if cell.has_cell else None)
        dgates = dx if cell.has_cell else dgates
        h_before = saved[..., -weight.shape[1] :]
        with without_autocast(dgates):
            dweight = dgates.flatten(0, 1).T @ h_before.flatten(0, 1)  # of all steps in one product
        return dx, dweight, dgates.sum((0, 1)), dh, dc if cell.has_cell else None, None, None

    def vmap_forward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        # The caller sees no gradient outside.
        size, save = info.batch_size, arguments[-1] or differentiable(*arguments[:5])
        arguments = (*arguments[:-1], save)
        if any(dim is not None for dim in mapped[1:3]):  # weight and bias, which have no batch
            return one_by_one(call_forward, size, mapped, arguments)
        y, final, saved = call_forward(*fold_all(arguments, mapped, size, (0, None, None, 0, 0, 0, None)))
        outputs = (
            unfold(y, size, 0),
            unfold(final, size, 0) if cell.has_cell else final,
            unfold(saved, size, 0) if save else saved,
        )
        return outputs, (0, 0 if cell.has_cell else None, 0 if save else None)

    call_forward = transformable(
        forward_op, launch=forward, vmap=vmap_forward, setup_context=setup_context, backward=gradient
    )
    return Operators(forward_op, call_forward)


lstm_forward_op, lstm_forward = register("lstm", Cell(4, True, 6, _lstm_forward, _lstm_backward))
gru_forward_op, gru_forward = register("gru", Cell(3, False, 5, _gru_forward, _gru_backward))


def lstm_triton(
    x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, c: Tensor, resets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The LSTM on the kernels. Arguments as of ``lstm``, which has checked them; none is empty."""
    y, final, _saved = lstm_forward(x, weight, bias, h, c, resets, differentiable(x, weight, bias, h, c))
    return y, y[:, -1], final


def gru_triton(x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
    """The GRU on the kernels. Arguments as of ``gru``, which has checked them; none is empty."""
    y, _, _saved = gru_forward(x, weight, bias, h, None, resets, differentiable(x, weight, bias, h))
    return y, y[:, -1]
