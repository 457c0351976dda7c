"""The SRWM's operators ``srwm_agents::srwm_forward`` and ``srwm_agents::srwm_backward``: allocate, launch, gradient.

Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.srwm.triton_kernels import srwm_backward_kernel, srwm_forward_kernel
from srwm_agents.ops.srwm.types import Rule, SRWMState, SRWMWeights
from srwm_agents.ops.transforms import Mapped, fold_all, one_by_one, transformable, unfold
from srwm_agents.ops.triton_support import contiguous, differentiable, on_device, padded

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = srwm_forward_kernel
_backward_kernel: Any = srwm_backward_kernel

NO_BLOCKS = (None, None, None, None)
"""In the place of a state that is not given."""


class Launch(NamedTuple):
    """How one kernel is launched for one padded width; the fastest of those measured on an H200."""

    warps: int
    lane_columns: int
    """At most so many neighbouring columns in one thread; see ``tile_offsets``."""
    registers: int
    """At most so many a thread: fewer let more programs share a multiprocessor, until they spill."""


FORWARD = {16: Launch(1, 1, 255), 32: Launch(1, 2, 255), 64: Launch(2, 1, 255), 128: Launch(8, 2, 255)}
"""By the smallest key at or above the padded width of the wider of D and O."""
FORWARD_WITH_LIMIT = {**FORWARD, 32: Launch(2, 2, 255), 64: Launch(8, 2, 255)}
"""More threads share the shifts that are measured, which else do not fit the registers; chosen by that, not timed."""
BACKWARD = {16: Launch(1, 4, 128), 32: Launch(2, 4, 255), 64: Launch(8, 2, 255), 128: Launch(8, 4, 255)}
BACKWARD_WITH_DECAY = {**BACKWARD, 16: Launch(1, 4, 255)}
"""With a decay, the slow weights' gradient is a second accumulator in registers."""

LARGEST_GROWTH = 100.0
"""Largest factor by which undoing a decay may multiply a rounding (6e-8 in float32): an error of 6e-6 at most."""
LIMITED_STEPS = 64
"""The most steps of a launch with a limit: each step that meets it replays those before it."""


def steps_at_once(rule: Rule) -> int | None:
    """How many steps one launch may undo, None for any number: roundings grow by 1 / decay a step."""
    steps = LIMITED_STEPS if rule.limit else None
    if rule.decay != 1:
        undone = max(1, int(-math.log(LARGEST_GROWTH) / math.log(rule.decay)))
        steps = undone if steps is None else min(steps, undone)
    return steps


@functools.cache
def _launch(dim: int, out: int, decays: bool, limits: bool, unit_keys: bool, backward: bool) -> dict[str, Any]:
    """A kernel's constants and options, as keyword arguments."""
    block_d, block_o = padded(dim), padded(out)
    decays = decays or (backward and limits)  # the gradient of a limit's factor has the form of a decay's
    table = FORWARD_WITH_LIMIT if limits else FORWARD
    if backward:
        table = BACKWARD_WITH_DECAY if decays else BACKWARD
    launch = next(launch for width, launch in table.items() if max(block_d, block_o) <= width)
    return {
        "D": dim, "OUT": out, "BD": block_d, "BO": block_o, "BB": 4, "ROW": _row(dim, out, limits),
        "DECAYS": decays, "LIMITS": limits, "UNIT_KEYS": unit_keys,
        "LANE_COLUMNS": launch.lane_columns, "num_warps": launch.warps, "maxnreg": launch.registers,
    }  # fmt: skip


def _row(dim: int, out: int, limits: bool) -> int:
    """Numbers that the forward kernel saves of a step."""
    return 4 * dim + out + (12 if limits else 8)


def _blocks(like: Tensor, batch: int, heads: int, dim: int, out: int) -> list[Tensor]:
    """An empty state."""
    return [
        torch.empty((batch, heads, dim, width), dtype=torch.float32, device=like.device)
        for width in (out, dim, dim, 4)
    ]  # fmt: skip


def _forward_outputs(x: Tensor, wy: Tensor, limit: float, save: bool) -> tuple[Tensor, ...]:
    """Empty y, final (four blocks) and saved."""
    batch, steps, heads, dim = x.shape
    out = wy.shape[-1]
    shape = (batch, heads, steps, _row(dim, out, limit > 0)) if save else (0,)
    saved = torch.empty(shape, dtype=torch.float32, device=x.device)
    return x.new_empty(batch, steps, heads, out), *_blocks(x, batch, heads, dim, out), saved


@torch.library.custom_op("srwm_agents::srwm_forward", mutates_args=())
def srwm_forward_op(
    x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
    sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None, decay: float,
    unit_keys: bool, limit: float, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """x [B, T, H, D], w* [H, D, *], s* [B, H, D, *], resets [B, T] -> y [B, T, H, O], final (four blocks), saved.

    ``saved`` [B, H, T, row] is for the backward operator, empty unless ``save``.
    """
    _, steps, heads, dim = x.shape
    y, fy, fq, fk, fb, saved = _forward_outputs(x, wy, limit, save)
    with on_device(x):
        _forward_kernel[(len(x) * heads,)](
            *contiguous(x, wy, wq, wk, wb, sy, sq, sk, sb, resets), y, fy, fq, fk, fb, saved if save else None,
            steps, heads, decay, limit,
            **_launch(dim, wy.shape[-1], decay != 1, limit > 0, unit_keys, backward=False),
        )  # fmt: skip
    return y, fy, fq, fk, fb, saved


@srwm_forward_op.register_fake
def _(x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, limit, save):
    return _forward_outputs(x, wy, limit, save)


def _backward_outputs(x: Tensor, wy: Tensor, need_dstate: bool) -> tuple[Tensor, Tensor, Any]:
    """Empty dx, each batch element's share of dweights, and dstate (four blocks, or four times None)."""
    batch, _, heads, dim = x.shape
    out = wy.shape[-1]
    shares = torch.empty((batch, heads * dim * (out + 2 * dim + 4)), dtype=torch.float32, device=x.device)
    dstate = _blocks(x, batch, heads, dim, out) if need_dstate else NO_BLOCKS
    return torch.empty_like(x, memory_format=torch.contiguous_format), shares, dstate


@torch.library.custom_op("srwm_agents::srwm_backward", mutates_args=())
def srwm_backward_op(
    x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
    sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None, decay: float,
    unit_keys: bool, limit: float, fy: Tensor, fq: Tensor, fk: Tensor, fb: Tensor, saved: Tensor, dy: Tensor | None,
    dfy: Tensor | None, dfq: Tensor | None, dfk: Tensor | None, dfb: Tensor | None, need_dstate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, each batch element's share of dweights, flat [B, H D (O + 2D + 4)] in float32, dstate (four blocks, empty
    unless ``need_dstate``).

    ``dy`` and ``df*`` are the gradients of the forward operator's outputs y and final, None for zeros.
    """
    _, steps, heads, dim = x.shape
    out = wy.shape[-1]
    final, dfinal = (fy, fq, fk, fb), (dfy, dfq, dfk, dfb)
    dy = x.new_zeros(*x.shape[:3], out) if dy is None else dy
    if any(grad is not None for grad in dfinal):  # all four or none: the kernel knows no other case
        zipped = zip(dfinal, final, strict=True)
        dfy, dfq, dfk, dfb = (torch.zeros_like(block) if grad is None else grad for grad, block in zipped)
    dx, shares, dstate = _backward_outputs(x, wy, need_dstate)
    with on_device(x):
        _backward_kernel[(len(x) * heads,)](
            *contiguous(x, wy, wq, wk, wb, sy, sq, sk, sb, resets, *final, saved, dy, dfy, dfq, dfk, dfb),
            dx, shares, *dstate, steps, heads, decay,
            **_launch(dim, out, decay != 1, limit > 0, unit_keys, backward=True),
        )  # fmt: skip
    dsy, dsq, dsk, dsb = (x.new_empty(0, dtype=torch.float32) if block is None else block for block in dstate)
    return dx, shares, dsy, dsq, dsk, dsb


@srwm_backward_op.register_fake
def _(
    x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, limit, fy, fq, fk, fb, saved, dy, dfy, dfq, dfk, dfb,
    need_dstate,
):  # fmt: skip
    dx, shares, dstate = _backward_outputs(x, wy, need_dstate)
    return dx, shares, *(x.new_empty(0, dtype=torch.float32) if block is None else block for block in dstate)


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


def _vmap_backward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
    size, need_dstate = info.batch_size, arguments[-1]
    places = _places(mapped)
    if places is None:
        return one_by_one(srwm_backward, size, mapped, arguments)
    folded = fold_all(
        arguments, mapped, size, (*places.inputs, *[None] * 3, *[places.state] * 5, places.x, *[places.state] * 4, None)
    )
    dx, shares, *dstate = srwm_backward(*folded)
    if places is INTO_BATCH:
        shares = unfold(shares, size, 0)
    else:  # of each block the mapped dimension is the slowest
        parts = shares.split([block.numel() for block in folded[1:5]], dim=1)
        shares = torch.cat([unfold(part, size, 1) for part in parts], dim=2)
    if need_dstate:
        dstate = [unfold(block, size, places.state) for block in dstate]
    outputs = unfold(dx, size, places.x), shares, *dstate
    return outputs, (places.x, 0 if places is INTO_BATCH else 1, *[places.state if need_dstate else None] * 4)


srwm_backward = transformable(srwm_backward_op, vmap=_vmap_backward)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, resets, ctx.decay, ctx.unit_keys, ctx.limit, ctx.save = inputs
    # The backward pass starts from the final state; it reads the initial one only where it replays.
    replays = resets is not None or ctx.limit > 0
    ctx.save_for_backward(*tensors[:5], *(tensors[5:] if replays else NO_BLOCKS), resets, *output[1:])
    ctx.need_dstate = any(ctx.needs_input_grad[5:9])
    ctx.mark_non_differentiable(output[-1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
    if not ctx.save:
        raise RuntimeError("srwm_forward was called with save=False: it kept nothing to differentiate through")
    tensors = ctx.saved_tensors
    dx, shares, *dstate = srwm_backward(
        *tensors[:10], ctx.decay, ctx.unit_keys, ctx.limit, *tensors[10:], *grads[:5], ctx.need_dstate
    )
    weights = tensors[1:5]
    # One share a batch element, then one sum in a fixed order: deterministic, as atomics would not be.
    parts = torch.split_with_sizes(shares.sum(0), [block.numel() for block in weights])
    parts = [part.view(block.shape).to(block.dtype) for part, block in zip(parts, weights, strict=True)]
    return dx, *parts, *(dstate if ctx.need_dstate else NO_BLOCKS), *[None] * 5


def _vmap_forward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
    size, save = info.batch_size, arguments[-1] or differentiable(*arguments[:9])  # the caller sees no gradient outside
    arguments = (*arguments[:-1], save)
    places = _places(mapped)
    if places is None:
        return one_by_one(srwm_forward, size, mapped, arguments)
    y, *final, saved = srwm_forward(*fold_all(arguments, mapped, size, (*places.inputs, *[None] * 4)))
    outputs = (
        unfold(y, size, places.x),
        *(unfold(block, size, places.state) for block in final),
        unfold(saved, size, places.state) if save else saved,
    )
    return outputs, (places.x, *[places.state] * 4, places.state if save else None)


srwm_forward = transformable(srwm_forward_op, vmap=_vmap_forward, setup_context=_setup_context, backward=_backward)


def srwm_triton(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, rule: Rule
) -> tuple[Tensor, SRWMState]:
    """The SRWM on the kernels. Arguments as of :func:`srwm_agents.ops.srwm.srwm`, which has checked them; T > 0."""
    save = differentiable(x, *weights, *(state or ()))
    steps = (steps_at_once(rule) if save else None) or x.shape[1]
    outputs = []
    for start in range(0, x.shape[1], steps):
        part = slice(start, start + steps)
        part_resets = None if resets is None else resets[:, part]
        y, *final, _saved = srwm_forward(x[:, part], *weights, *(state or NO_BLOCKS), part_resets, *rule, save)
        state = SRWMState(*final)
        outputs.append(y)
    assert state is not None
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1), state
