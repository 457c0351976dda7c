"""The delta rule's operators ``srwm_agents::delta_forward`` and ``delta_backward``: allocate, launch, gradient.

Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.delta.triton_kernels import delta_backward_kernel, delta_forward_kernel
from srwm_agents.ops.transforms import Mapped, fold_all, transformable, unfold
from srwm_agents.ops.triton_support import contiguous, differentiable, on_device, padded

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = delta_forward_kernel
_backward_kernel: Any = delta_backward_kernel


class Launch(NamedTuple):
    """How one kernel is launched for one padded width; the fastest of those measured on an H200."""

    warps: int
    lane_columns: int
    """At most so many neighbouring columns in one thread; see ``tile_offsets``."""


FORWARD = {16: Launch(1, 2), 32: Launch(1, 2), 64: Launch(2, 2), 128: Launch(4, 2)}
BACKWARD = {16: Launch(1, 4), 32: Launch(2, 4), 64: Launch(4, 4), 128: Launch(8, 4)}
"""By the smallest key at or above the padded width of the wider of D and O."""


@functools.cache
def _launch(dim: int, out: int, backward: bool) -> dict[str, Any]:
    """A kernel's constants and options, as keyword arguments."""
    block_d, block_o = padded(dim), padded(out)
    table = BACKWARD if backward else FORWARD
    launch = next(launch for width, launch in table.items() if max(block_d, block_o) <= width)
    return {
        "D": dim, "OUT": out, "BD": block_d, "BO": block_o,
        "LANE_COLUMNS": launch.lane_columns, "num_warps": launch.warps,
    }  # fmt: skip


def _forward_outputs(q: Tensor, v: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Empty y, final and errors."""
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    final = torch.empty((batch, heads, dim, out), dtype=torch.float32, device=q.device)
    errors = torch.empty((batch, heads, steps, out) if save else (0,), dtype=torch.float32, device=q.device)
    return v.new_empty(v.shape), final, errors


@torch.library.custom_op("srwm_agents::delta_forward", mutates_args=())
def delta_forward_op(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k [B, T, H, D], v [B, T, H, O], beta [B, T, H], state [B, H, D, O], resets [B, T] -> y [B, T, H, O], final,
    errors [B, H, T, O], which are for the backward operator and empty unless ``save``."""
    _, steps, heads, dim = q.shape
    y, final, errors = _forward_outputs(q, v, save)
    with on_device(q):
        _forward_kernel[(len(q) * heads,)](
            *contiguous(q, k, v, beta, state, resets), y, final, errors if save else None, steps, heads,
            **_launch(dim, v.shape[-1], backward=False),
        )  # fmt: skip
    return y, final, errors


@delta_forward_op.register_fake
def _(q, k, v, beta, state, resets, save):
    return _forward_outputs(q, v, save)


def _backward_outputs(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, final: Tensor, need_dstate: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty dq, dk, dv, dbeta, dstate."""
    dq, dk, dv, dbeta = (z.new_empty(z.shape) for z in (q, k, v, beta))
    return dq, dk, dv, dbeta, final.new_empty(final.shape if need_dstate else (0,))


@torch.library.custom_op("srwm_agents::delta_backward", mutates_args=())
def delta_backward_op(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None,
    final: Tensor, errors: Tensor, dy: Tensor | None, dfinal: Tensor | None, need_dstate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dbeta in their inputs' shapes and dtypes, dstate [B, H, D, O] (empty unless ``need_dstate``).

    ``dy`` and ``dfinal`` are the gradients of the forward operator's outputs, None for zeros.
    """
    _, steps, heads, dim = q.shape
    dy = torch.zeros_like(v) if dy is None else dy
    dq, dk, dv, dbeta, dstate = _backward_outputs(q, k, v, beta, final, need_dstate)
    with on_device(q):
        _backward_kernel[(len(q) * heads,)](
            *contiguous(q, k, v, beta, state, resets, final, errors, dy, dfinal),
            dq, dk, dv, dbeta, dstate if need_dstate else None, steps, heads,
            **_launch(dim, v.shape[-1], backward=True),
        )  # fmt: skip
    return dq, dk, dv, dbeta, dstate


@delta_backward_op.register_fake
def _(q, k, v, beta, state, resets, final, errors, dy, dfinal, need_dstate):
    return _backward_outputs(q, k, v, beta, final, need_dstate)


def _vmap_backward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
    size, need_dstate = info.batch_size, arguments[-1]
    *grads, dstate = delta_backward(*fold_all(arguments, mapped, size, (*[0] * 10, None)))
    outputs = *(unfold(grad, size, 0) for grad in grads), unfold(dstate, size, 0) if need_dstate else dstate
    return outputs, (0, 0, 0, 0, 0 if need_dstate else None)


delta_backward = transformable(delta_backward_op, vmap=_vmap_backward)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, state, resets, ctx.save = inputs
    # The backward pass starts from the final state; it reads the initial one only to cross a reset.
    ctx.save_for_backward(*tensors, None if resets is None else state, resets, *output[1:])
    ctx.need_dstate = ctx.needs_input_grad[4]
    ctx.mark_non_differentiable(output[-1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _derrors: Tensor | None) -> tuple[Tensor | None, ...]:
    if not ctx.save:
        raise RuntimeError("delta_forward was called with save=False: it kept nothing to differentiate through")
    *grads, dstate = delta_backward(*ctx.saved_tensors, dy, dfinal, ctx.need_dstate)
    return *grads, dstate if ctx.need_dstate else None, None, None


def _vmap_forward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
    size, save = info.batch_size, arguments[-1] or differentiable(*arguments[:5])  # the caller sees no gradient outside
    y, final, errors = delta_forward(*fold_all((*arguments[:-1], save), mapped, size, (*[0] * 6, None)))
    outputs = unfold(y, size, 0), unfold(final, size, 0), unfold(errors, size, 0) if save else errors
    return outputs, (0, 0, 0 if save else None)


delta_forward = transformable(delta_forward_op, vmap=_vmap_forward, setup_context=_setup_context, backward=_backward)


def delta_rule_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The delta rule on the kernels. Arguments as of ``delta_rule``, which has checked them; T > 0."""
    y, final, _errors = delta_forward(q, k, v, beta, state, resets, differentiable(q, k, v, beta, state))
    return y, final
