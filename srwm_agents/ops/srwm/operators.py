"""The SRWM's operators, forward and backward over time: one pair for each kind of kernels, registered here.

A pair is made of two functions that launch the kernels. What it is to PyTorch is the same for all: schema, fake
tensors, gradient, rules for ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.transforms import Mapped, fold_all, one_by_one, transformable, unfold
from srwm_agents.ops.triton_support import differentiable

NO_BLOCKS = (None, None, None, None)
"""In the place of a state that is not given."""


class Kernels(NamedTuple):
    """How one kind of kernels is launched; arguments as of the operators below."""

    forward: Callable[..., None]
    """(x, weights, state, resets, decay, unit_keys, limit, y, final, saved or None): writes the last three."""
    backward: Callable[..., None]
    """(x, weights, state, resets, decay, unit_keys, limit, final, saved, dy, dfinal, dx, shares, dstate): the last
    three; ``dfinal`` and ``dstate`` are four blocks or four times None."""
    saved_shape: Callable[[Tensor, Tensor, float], tuple[int, ...]]
    """(x, weights.y, limit) -> shape of ``saved``, whose first two dimensions are B and H."""
    reads_state: Callable[[Tensor | None, float], bool]
    """(resets, limit) -> whether ``backward`` reads the state that was given."""


class Operators(NamedTuple):
    """A registered pair."""

    forward_op: Any
    forward: Callable[..., Any]
    """Called in the operator's place; see :func:`srwm_agents.ops.transforms.transformable`."""


class Places(NamedTuple):
    """The dimension of each argument that a mapped one becomes part of, None where the argument has no such one."""

    x: int
    weights: int | None
    state: int
    resets: int | None

    @property
    def inputs(self) -> tuple[int | None, ...]:
        """For x, the blocks of the weights and of the state, and resets."""
        return self.x, *[self.weights] * 4, *[self.state] * 4, self.resets


INTO_BATCH = Places(x=0, weights=None, state=0, resets=0)
INTO_HEADS = Places(x=2, weights=0, state=1, resets=None)


def _places(mapped: Mapped) -> Places | None:
    """None where both weights, which have no batch, and resets, which have no heads, are mapped."""
    if all(dim is None for dim in mapped[1:5]):
        return INTO_BATCH
    return INTO_HEADS if mapped[9] is None else None


def _blocks(like: Tensor, batch: int, heads: int, dim: int, out: int) -> list[Tensor]:
    """An empty state."""
    return [
        torch.empty((batch, heads, dim, width), dtype=torch.float32, device=like.device)
        for width in (out, dim, dim, 4)
    ]  # fmt: skip


def _backward_outputs(x: Tensor, wy: Tensor, need_dstate: bool) -> tuple[Tensor, Tensor, Any]:
    """Empty dx, each batch element's share of dweights, and dstate (four blocks, or four times None)."""
    batch, _, heads, dim = x.shape
    out = wy.shape[-1]
    shares = torch.empty((batch, heads * dim * (out + 2 * dim + 4)), dtype=torch.float32, device=x.device)
    dstate = _blocks(x, batch, heads, dim, out) if need_dstate else NO_BLOCKS
    return torch.empty_like(x, memory_format=torch.contiguous_format), shares, dstate


def register(name: str, kernels: Kernels) -> Operators:
    """Register ``srwm_agents::{name}_forward`` and ``srwm_agents::{name}_backward``."""

    def forward_outputs(x: Tensor, wy: Tensor, limit: float, save: bool) -> tuple[Tensor, ...]:
        """Empty y, final (four blocks) and saved."""
        batch, steps, heads, dim = x.shape
        out = wy.shape[-1]
        shape = kernels.saved_shape(x, wy, limit) if save else (0,)
        saved = torch.empty(shape, dtype=torch.float32, device=x.device)
        return x.new_empty(batch, steps, heads, out), *_blocks(x, batch, heads, dim, out), saved

    def forward(
        x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
        sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None,
        decay: float, unit_keys: bool, limit: float, save: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """x [B, T, H, D], w* [H, D, *], s* [B, H, D, *], resets [B, T] -> y [B, T, H, O], final (four blocks), saved.

        ``saved`` [B, H, …] is for the backward operator, empty unless ``save``.
        """
        y, fy, fq, fk, fb, saved = forward_outputs(x, wy, limit, save)
        kernels.forward(
            x, (wy, wq, wk, wb), (sy, sq, sk, sb), resets, decay, unit_keys, limit,
            y, (fy, fq, fk, fb), saved if save else None,
        )  # fmt: skip
        return y, fy, fq, fk, fb, saved

    forward_op = torch.library.custom_op(f"srwm_agents::{name}_forward", forward, mutates_args=())

    @forward_op.register_fake
    def _(x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, limit, save):
        return forward_outputs(x, wy, limit, save)

    @torch.library.custom_op(f"srwm_agents::{name}_backward", mutates_args=())
    def backward_op(
        x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
        sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None,
        decay: float, unit_keys: bool, limit: float, fy: Tensor, fq: Tensor, fk: Tensor, fb: Tensor, saved: Tensor,
        dy: Tensor | None, dfy: Tensor | None, dfq: Tensor | None, dfk: Tensor | None, dfb: Tensor | None,
        need_dstate: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """dx, each batch element's share of dweights, flat [B, H D (O + 2D + 4)] in float32, dstate (four blocks, empty
        unless ``need_dstate``).

        ``dy`` and ``df*`` are the gradients of the forward operator's outputs y and final, None for zeros.
        """
        final, dfinal = (fy, fq, fk, fb), (dfy, dfq, dfk, dfb)
        dy = x.new_zeros(*x.shape[:3], wy.shape[-1]) if dy is None else dy
        if any(grad is not None for grad in dfinal):  # all four or none: the kernels know no other case
            zipped = zip(dfinal, final, strict=True)
            dfinal = tuple(torch.zeros_like(block) if grad is None else grad for grad, block in zipped)
        dx, shares, dstate = _backward_outputs(x, wy, need_dstate)
        kernels.backward(
            x, (wy, wq, wk, wb), (sy, sq, sk, sb), resets, decay, unit_keys, limit,
            final, saved, dy, dfinal, dx, shares, dstate,
        )  # fmt: skip
        dsy, dsq, dsk, dsb = (x.new_empty(0, dtype=torch.float32) if block is None else block for block in dstate)
        return dx, shares, dsy, dsq, dsk, dsb

    @backward_op.register_fake
    def _(
        x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, limit, fy, fq, fk, fb, saved,
        dy, dfy, dfq, dfk, dfb, need_dstate,
    ):  # fmt: skip
        dx, shares, dstate = _backward_outputs(x, wy, need_dstate)
        return dx, shares, *(x.new_empty(0, dtype=torch.float32) if block is None else block for block in dstate)

    def vmap_backward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        size, need_dstate = info.batch_size, arguments[-1]
        places = _places(mapped)
        if places is None:
            return one_by_one(call_backward, size, mapped, arguments)
        finals = (*[None] * 3, *[places.state] * 5, places.x, *[places.state] * 4, None)
        folded = fold_all(arguments, mapped, size, (*places.inputs, *finals))
        dx, shares, *dstate = call_backward(*folded)
        if places is INTO_BATCH:
            shares = unfold(shares, size, 0)
        else:  # of each block the mapped dimension is the slowest
            parts = shares.split([block.numel() for block in folded[1:5]], dim=1)
            shares = torch.cat([unfold(part, size, 1) for part in parts], dim=2)
        if need_dstate:
            dstate = [unfold(block, size, places.state) for block in dstate]
        outputs = unfold(dx, size, places.x), shares, *dstate
        return outputs, (places.x, 0 if places is INTO_BATCH else 1, *[places.state if need_dstate else None] * 4)

    call_backward = transformable(backward_op, vmap=vmap_backward)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, resets, ctx.decay, ctx.unit_keys, ctx.limit, ctx.save = inputs
        given = tensors[5:] if kernels.reads_state(resets, ctx.limit) else NO_BLOCKS
        ctx.save_for_backward(*tensors[:5], *given, resets, *output[1:])
        ctx.need_dstate = any(ctx.needs_input_grad[5:9])
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)

    def gradient(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        if not ctx.save:
            raise RuntimeError(f"{name}_forward was called with save=False: it kept nothing to differentiate through")
        tensors = ctx.saved_tensors
        dx, shares, *dstate = call_backward(
            *tensors[:10], ctx.decay, ctx.unit_keys, ctx.limit, *tensors[10:], *grads[:5], ctx.need_dstate
        )
        weights = tensors[1:5]
        # One share a batch element, then one sum in a fixed order: deterministic, as atomics would not be.
        parts = torch.split_with_sizes(shares.sum(0), [block.numel() for block in weights])
        parts = [part.view(block.shape).to(block.dtype) for part, block in zip(parts, weights, strict=True)]
        return dx, *parts, *(dstate if ctx.need_dstate else NO_BLOCKS), *[None] * 5

    def vmap_forward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        # The caller sees no gradient outside.
        size, save = info.batch_size, arguments[-1] or differentiable(*arguments[:9])
        arguments = (*arguments[:-1], save)
        places = _places(mapped)
        if places is None:
            return one_by_one(call_forward, size, mapped, arguments)
        y, *final, saved = call_forward(*fold_all(arguments, mapped, size, (*places.inputs, *[None] * 4)))
        outputs = (
            unfold(y, size, places.x),
            *(unfold(block, size, places.state) for block in final),
            unfold(saved, size, places.state) if save else saved,
        )
        return outputs, (places.x, *[places.state] * 4, places.state if save else None)

    call_forward = transformable(
        forward_op, launch=forward, vmap=vmap_forward, setup_context=setup_context, backward=gradient
    )
    return Operators(forward_op, call_forward)
