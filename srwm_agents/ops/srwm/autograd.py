"""Around the kernels: host functions, the autograd function, the registered operator, and the two entry points.

Eager calls go through :class:`SRWMFunction`, which costs the host the least; while ``torch.compile`` or
``torch.export`` traces, the same host functions are called through the operators ``srwm_agents::srwm_forward`` and
``srwm_agents::srwm_backward``. Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from srwm_agents.ops.srwm.triton_kernels import srwm_backward_kernel, srwm_forward_kernel
from srwm_agents.ops.srwm.types import SRWMState, SRWMWeights
from srwm_agents.ops.triton_support import on_device, padded

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = srwm_forward_kernel
_backward_kernel: Any = srwm_backward_kernel

INTERPRETED = not isinstance(srwm_forward_kernel, triton.runtime.JITFunction)
"""Whether the kernels run in Triton's interpreter (TRITON_INTERPRET=1 when Triton was imported)."""

Blocks = Any
"""Four tensors: y, q, k, beta."""
NO_BLOCKS = (None, None, None, None)


class Launch(NamedTuple):
    """How one kernel is launched for one padded width; the fastest of those measured on an H200."""

    warps: int
    lane_columns: int
    """At most so many neighbouring columns in one thread; see ``_tile_offsets``."""
    registers: int
    """At most so many a thread: fewer let more programs share a multiprocessor, until they spill."""


FORWARD = {16: Launch(1, 1, 255), 32: Launch(1, 2, 255), 64: Launch(2, 1, 255), 128: Launch(8, 2, 255)}
BACKWARD = {16: Launch(1, 4, 128), 32: Launch(2, 4, 255), 64: Launch(8, 2, 255), 128: Launch(8, 4, 255)}
"""By the smallest key at or above the padded width of the wider of D and O."""
BACKWARD_WITH_DECAY = {**BACKWARD, 16: Launch(1, 4, 255)}
"""The slow weights' gradient has registers of its own there."""

LARGEST_GROWTH = 100.0
"""Of a rounding while a decay is undone: 6e-8 times this is a third of what the tests allow."""


def steps_at_once(decay: float) -> int | None:
    """How many steps one launch may undo, None for any number: roundings grow by 1 / decay a step."""
    return None if decay == 1 else max(1, int(-math.log(LARGEST_GROWTH) / math.log(decay)))


@functools.cache
def _launch(dim: int, out: int, decay: float, unit_keys: bool, backward: bool) -> dict[str, Any]:
    """A kernel's constants and options, as keyword arguments."""
    block_d, block_o = padded(dim), padded(out)
    table = (BACKWARD if decay == 1 else BACKWARD_WITH_DECAY) if backward else FORWARD
    launch = next(launch for width, launch in table.items() if max(block_d, block_o) <= width)
    return {
        "D": dim, "OUT": out, "BD": block_d, "BO": block_o, "BB": 4, "DECAYS": decay != 1, "UNIT_KEYS": unit_keys,
        "LANE_COLUMNS": launch.lane_columns, "num_warps": launch.warps, "maxnreg": launch.registers,
    }  # fmt: skip


# Host functions: allocate, launch. All tensors contiguous; no autograd in here.


def forward(
    x: Tensor,
    weights: Blocks,
    state: Blocks | None,
    resets: Tensor | None,
    decay: float = 1.0,
    unit_keys: bool = False,
    *,
    save: bool,
    in_place: bool = False,
) -> tuple[Tensor, Blocks, Tensor | None]:
    """x [B, T, H, D], weights [H, D, *], state [B, H, D, *], resets [B, T] -> y [B, T, H, O], final, saved.

    ``saved`` [B, H, T, 4D + O + 8] is for :func:`backward`, None unless ``save``. ``in_place`` writes the final state
    over ``state``.
    """
    batch, steps, heads, dim = x.shape
    out = weights[0].shape[-1]
    y = x.new_empty(batch, steps, heads, out)
    if in_place:
        assert state is not None
        final = state
    else:
        y_f, q_f, k_f, b_f = (
            torch.empty((batch, heads, dim, width), dtype=torch.float32, device=x.device)
            for width in (out, dim, dim, 4)
        )
        final = (y_f, q_f, k_f, b_f)
    saved = None
    if save:
        saved = torch.empty((batch, heads, steps, 4 * dim + out + 8), dtype=torch.float32, device=x.device)
    with on_device(x):
        _forward_kernel[(batch * heads,)](
            x, *weights, *(state or NO_BLOCKS), resets, y, *final, saved, steps, heads, decay,
            **_launch(dim, out, decay, unit_keys, backward=False),
        )  # fmt: skip
    return y, final, saved


def backward(
    x: Tensor,
    weights: Blocks,
    state: Blocks | None,
    resets: Tensor | None,
    decay: float,
    unit_keys: bool,
    final: Blocks,
    saved: Tensor,
    dy: Tensor,
    dfinal: Blocks | None,
    *,
    need_dstate: bool,
) -> tuple[Tensor, Tensor, Blocks | None]:
    """Gradients dx [B, T, H, D], dweights flat [H D (O + 2D + 4)] in float32, dstate or None."""
    batch, steps, heads, dim = x.shape
    out = weights[0].shape[-1]
    dx = torch.empty_like(x)
    # One share a batch element, then one sum in a fixed order: deterministic, as atomics would not be.
    shares = torch.empty((batch, heads * dim * (out + 2 * dim + 4)), dtype=torch.float32, device=x.device)
    dstate = None
    if need_dstate:
        y_d, q_d, k_d, b_d = (torch.empty_like(block) for block in final)
        dstate = (y_d, q_d, k_d, b_d)
    with on_device(x):
        _backward_kernel[(batch * heads,)](
            x, *weights, *(state or NO_BLOCKS), resets, *final, saved, dy, *(dfinal or NO_BLOCKS),
            dx, shares, *(dstate or NO_BLOCKS), steps, heads, decay,
            **_launch(dim, out, decay, unit_keys, backward=True),
        )  # fmt: skip
    return dx, shares.sum(0), dstate


def _split(dweights: Tensor, weights: Blocks) -> list[Tensor]:
    """The flat gradient, as the four blocks in the weights' shapes and dtype."""
    parts = torch.split_with_sizes(dweights, [block.numel() for block in weights])
    return [part.view(block.shape).to(block.dtype) for part, block in zip(parts, weights, strict=True)]


def _upstream(x: Tensor, weights: Blocks, final: Blocks, grads: tuple[Tensor | None, ...]) -> Any:
    """Upstream gradients of y and of the final state: contiguous, zeros for a missing one, None if all four are."""
    dy, *dfinal = grads
    dy = x.new_zeros(*x.shape[:3], weights[0].shape[-1]) if dy is None else dy.contiguous()
    if all(grad is None for grad in dfinal):
        return dy, None
    return dy, tuple(
        torch.zeros_like(block) if grad is None else grad.contiguous()
        for grad, block in zip(dfinal, final, strict=True)
    )


# Eager.


class SRWMFunction(torch.autograd.Function):
    """``apply(x, *weights, *state or four None, resets, decay, unit_keys)`` -> y, *final."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
        weights, state, (resets, decay, unit_keys) = args[:4], args[4:8], args[8:]
        initial = None if state[0] is None else state
        y, final, saved = forward(x, weights, initial, resets, decay, unit_keys, save=True)
        ctx.decay, ctx.unit_keys = decay, unit_keys
        # The backward pass starts from the final state; it reads the initial one only to cross a reset.
        ctx.save_for_backward(x, *weights, *(NO_BLOCKS if resets is None else state), resets, *final, saved)
        ctx.set_materialize_grads(False)
        return y, *final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, *rest = ctx.saved_tensors
        weights, state, resets, final, saved = rest[:4], rest[4:8], rest[8], rest[9:13], rest[13]
        dy, dfinal = _upstream(x, weights, final, grads)
        dx, dweights, dstate = backward(
            x, weights, None if state[0] is None else state, resets, ctx.decay, ctx.unit_keys, final, saved, dy,
            dfinal, need_dstate=any(ctx.needs_input_grad[5:9]),
        )  # fmt: skip
        return dx, *_split(dweights, weights), *(dstate or NO_BLOCKS), None, None, None


# The operators, for torch.compile and torch.export.


@torch.library.custom_op("srwm_agents::srwm_forward", mutates_args=())
def srwm_forward_op(
    x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
    sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None, decay: float,
    unit_keys: bool, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, final (four blocks), saved (empty unless ``save``)."""
    state = None if sy is None else _contiguous((sy, sq, sk, sb))
    resets = None if resets is None else resets.contiguous()
    weights = _contiguous((wy, wq, wk, wb))
    y, final, saved = forward(x.contiguous(), weights, state, resets, decay, unit_keys, save=save)
    return y, *final, x.new_empty(0, dtype=torch.float32) if saved is None else saved


@srwm_forward_op.register_fake
def _(x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, save):
    batch, steps, heads, dim = x.shape
    out = wy.shape[-1]
    final = [
        torch.empty((batch, heads, dim, width), dtype=torch.float32, device=x.device) for width in (out, dim, dim, 4)
    ]
    shape = (batch, heads, steps, 4 * dim + out + 8) if save else (0,)
    return x.new_empty(batch, steps, heads, out), *final, x.new_empty(shape, dtype=torch.float32)


@torch.library.custom_op("srwm_agents::srwm_backward", mutates_args=())
def srwm_backward_op(
    x: Tensor, wy: Tensor, wq: Tensor, wk: Tensor, wb: Tensor,
    sy: Tensor | None, sq: Tensor | None, sk: Tensor | None, sb: Tensor | None, resets: Tensor | None, decay: float,
    unit_keys: bool, fy: Tensor, fq: Tensor, fk: Tensor, fb: Tensor, saved: Tensor, dy: Tensor | None,
    dfy: Tensor | None, dfq: Tensor | None, dfk: Tensor | None, dfb: Tensor | None, need_dstate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweights flat, dstate (four blocks, empty unless ``need_dstate``)."""
    x, weights, final = x.contiguous(), _contiguous((wy, wq, wk, wb)), _contiguous((fy, fq, fk, fb))
    upstream, dfinal = _upstream(x, weights, final, (dy, dfy, dfq, dfk, dfb))
    dx, dweights, dstate = backward(
        x, weights, None if sy is None else _contiguous((sy, sq, sk, sb)),
        None if resets is None else resets.contiguous(), decay, unit_keys, final, saved.contiguous(), upstream, dfinal,
        need_dstate=need_dstate,
    )  # fmt: skip
    dy_s, dq_s, dk_s, db_s = dstate or tuple(fy.new_empty(0) for _ in range(4))
    return dx, dweights, dy_s, dq_s, dk_s, db_s


@srwm_backward_op.register_fake
def _(
    x, wy, wq, wk, wb, sy, sq, sk, sb, resets, decay, unit_keys, fy, fq, fk, fb, saved, dy, dfy, dfq, dfk, dfb,
    need_dstate,
):  # fmt: skip
    _, _, heads, dim = x.shape
    dweights = x.new_empty(heads * dim * (wy.shape[-1] + 2 * dim + 4), dtype=torch.float32)
    dstate = [torch.empty_like(block) if need_dstate else block.new_empty(0) for block in (fy, fq, fk, fb)]
    return x.new_empty(x.shape), dweights, *dstate


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *weights_and_state, resets, ctx.decay, ctx.unit_keys, _save = inputs
    weights, state = weights_and_state[:4], weights_and_state[4:]
    ctx.save_for_backward(x, *weights, *(NO_BLOCKS if resets is None else state), resets, *output[1:])
    ctx.need_dstate = any(block is not None and block.requires_grad for block in state)


def _op_backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    if tensors[-1].numel() == 0 and tensors[0].numel() > 0:
        raise RuntimeError("srwm_forward was called with save=False: it kept nothing to differentiate through")
    rule = (ctx.decay, ctx.unit_keys)
    dx, dweights, *dstate = srwm_backward_op(*tensors[:10], *rule, *tensors[10:], *grads[:5], ctx.need_dstate)
    return dx, *_split(dweights, tensors[1:5]), *(dstate if ctx.need_dstate else NO_BLOCKS), None, None, None, None


srwm_forward_op.register_autograd(_op_backward, setup_context=_setup_context)


# Entry points.


def _contiguous(blocks: Any) -> Any:
    return tuple(block.contiguous() for block in blocks)


def srwm_triton(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, decay: float, unit_keys: bool
) -> tuple[Tensor, SRWMState]:
    """The SRWM on the kernels. Shapes as in :func:`srwm_agents.ops.srwm.srwm`, which has checked them; T > 0."""
    steps = steps_at_once(decay)
    if steps is None or x.shape[1] <= steps or not _differentiable(x, weights, state):
        return _launched(x, weights, state, resets, decay, unit_keys)
    outputs = []
    for start in range(0, x.shape[1], steps):
        part = slice(start, start + steps)
        part_resets = None if resets is None else resets[:, part]
        y, state = _launched(x[:, part], weights, state, part_resets, decay, unit_keys)
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, dim=1), state


def _differentiable(x: Tensor, weights: SRWMWeights, state: SRWMState | None) -> bool:
    return torch.is_grad_enabled() and any(z.requires_grad for z in (x, *weights, *(state or ())))


def _launched(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, decay: float, unit_keys: bool
) -> tuple[Tensor, SRWMState]:
    """In one launch, and one for the gradient."""
    inputs = (x, *weights, *(NO_BLOCKS if state is None else state))
    differentiable = _differentiable(x, weights, state)
    if torch.compiler.is_compiling():
        y, *final, _saved = srwm_forward_op(*inputs, resets, decay, unit_keys, differentiable)
        return y, SRWMState(*final)
    inputs: Any = tuple(None if z is None else z.contiguous() for z in inputs)
    if resets is not None:
        resets = resets.contiguous()
    if differentiable:
        y, *final = SRWMFunction.apply(*inputs, resets, decay, unit_keys)
    else:
        state = None if state is None else inputs[5:]
        y, final, _ = forward(inputs[0], inputs[1:5], state, resets, decay, unit_keys, save=False)
    return y, SRWMState(*final)


def srwm_triton_step_(x: Tensor, weights: SRWMWeights, state: SRWMState, decay: float, unit_keys: bool) -> Tensor:
    """One step in place. Shapes as in :func:`srwm_agents.ops.srwm.srwm_step_`, which has checked them."""
    y, _, _ = forward(
        x.contiguous()[:, None], _contiguous(weights), tuple(state), None, decay, unit_keys, save=False, in_place=True
    )
    return y[:, 0]
