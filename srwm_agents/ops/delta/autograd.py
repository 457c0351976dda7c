"""Around the kernels: host functions, the autograd function, the registered operator, and the two entry points.

Eager calls go through :class:`DeltaFunction`, which costs the host the least; while ``torch.compile`` or
``torch.export`` traces, the same host functions are called through the operators ``srwm_agents::delta_forward`` and
``srwm_agents::delta_backward``. Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from srwm_agents.ops.delta.triton_kernels import delta_backward_kernel, delta_forward_kernel
from srwm_agents.ops.triton_support import on_device, padded

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = delta_forward_kernel
_backward_kernel: Any = delta_backward_kernel

INTERPRETED = not isinstance(delta_forward_kernel, triton.runtime.JITFunction)
"""Whether the kernels run in Triton's interpreter (TRITON_INTERPRET=1 when Triton was imported)."""


class Launch(NamedTuple):
    """How one kernel is launched for one padded width; the fastest of those measured on an H200."""

    warps: int
    lane_columns: int
    """At most so many neighbouring columns in one thread; see ``_tile_offsets``."""


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


# Host functions: allocate, launch. All tensors contiguous; no autograd in here.


def forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None,
    *, save: bool, in_place: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """q, k [B, T, H, D], v [B, T, H, O], beta [B, T, H], state [B, H, D, O] -> y [B, T, H, O], final, errors.

    ``errors`` [B, H, T, O] is for :func:`backward`, None unless ``save``. ``in_place`` writes the final state over
    ``state``.
    """
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    y = torch.empty_like(v)
    if in_place:
        assert state is not None
        final = state
    else:
        final = torch.empty((batch, heads, dim, out), dtype=torch.float32, device=q.device)
    errors = torch.empty((batch, heads, steps, out), dtype=torch.float32, device=q.device) if save else None
    with on_device(q):
        _forward_kernel[(batch * heads,)](
            q, k, v, beta, state, resets, y, final, errors, steps, heads, **_launch(dim, out, backward=False)
        )
    return y, final, errors


def backward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None,
    final: Tensor, errors: Tensor, dy: Tensor, dfinal: Tensor | None, *, need_dstate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients dq, dk, dv, dbeta in their inputs' shapes and dtypes, dstate [B, H, D, O] or None."""
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    dq, dk, dv, dbeta = (torch.empty_like(z) for z in (q, k, v, beta))
    dstate = torch.empty_like(final) if need_dstate else None
    with on_device(q):
        _backward_kernel[(batch * heads,)](
            q, k, v, beta, state, resets, final, errors, dy, dfinal, dq, dk, dv, dbeta, dstate,
            steps, heads, **_launch(dim, out, backward=True),
        )  # fmt: skip
    return dq, dk, dv, dbeta, dstate


def _upstream(v: Tensor, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Upstream gradients, contiguous; zeros for a missing dy."""
    dy = torch.zeros_like(v) if dy is None else dy.contiguous()
    return dy, None if dfinal is None else dfinal.contiguous()


# Eager.


class DeltaFunction(torch.autograd.Function):
    """``apply(q, k, v, beta, state or None, resets or None)`` -> y, final."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        *_, state, resets = inputs
        y, final, errors = forward(*inputs, save=True)
        # The backward pass starts from the final state; it reads the initial one only to cross a reset.
        ctx.save_for_backward(*inputs[:4], None if resets is None else state, resets, final, errors)
        ctx.set_materialize_grads(False)
        return y, final

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, dy: Tensor | None, dfinal: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        tensors: Any = ctx.saved_tensors
        arguments: Any = (*tensors, *_upstream(tensors[2], dy, dfinal))
        return *backward(*arguments, need_dstate=ctx.needs_input_grad[4]), None


# The operators, for torch.compile and torch.export.


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


@torch.library.custom_op("srwm_agents::delta_forward", mutates_args=())
def delta_forward_op(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, final, errors (empty unless ``save``)."""
    y, final, errors = forward(*_contiguous(q, k, v, beta, state, resets), save=save)
    return y, final, q.new_empty(0, dtype=torch.float32) if errors is None else errors


@delta_forward_op.register_fake
def _(q, k, v, beta, state, resets, save):
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    final = q.new_empty((batch, heads, dim, out), dtype=torch.float32)
    return v.new_empty(v.shape), final, q.new_empty((batch, heads, steps, out) if save else (0,), dtype=torch.float32)


@torch.library.custom_op("srwm_agents::delta_backward", mutates_args=())
def delta_backward_op(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None,
    final: Tensor, errors: Tensor, dy: Tensor | None, dfinal: Tensor | None, need_dstate: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, dbeta, dstate (empty unless ``need_dstate``)."""
    tensors: Any = _contiguous(q, k, v, beta, state, resets, final, errors)
    arguments: Any = (*tensors, *_upstream(tensors[2], dy, dfinal))
    dq, dk, dv, dbeta, dstate = backward(*arguments, need_dstate=need_dstate)
    return dq, dk, dv, dbeta, final.new_empty(0) if dstate is None else dstate


@delta_backward_op.register_fake
def _(q, k, v, beta, state, resets, final, errors, dy, dfinal, need_dstate):
    dstate = final.new_empty(final.shape if need_dstate else (0,))
    return *(z.new_empty(z.shape) for z in (q, k, v, beta)), dstate


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, state, resets, _save = inputs
    ctx.save_for_backward(*tensors, None if resets is None else state, resets, *output[1:])
    ctx.need_dstate = state is not None and state.requires_grad


def _op_backward(
    ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _derrors: Tensor | None
) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    if tensors[-1].numel() == 0 and tensors[2].numel() > 0:
        raise RuntimeError("delta_forward was called with save=False: it kept nothing to differentiate through")
    *grads, dstate = delta_backward_op(*tensors, dy, dfinal, ctx.need_dstate)
    return *grads, dstate if ctx.need_dstate else None, None, None


delta_forward_op.register_autograd(_op_backward, setup_context=_setup_context)


# Entry points.


def delta_rule_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The delta rule on the kernels. Arguments as of ``delta_rule``, which has checked them; T > 0."""
    inputs = (q, k, v, beta, state)
    differentiable = torch.is_grad_enabled() and any(z is not None and z.requires_grad for z in inputs)
    if torch.compiler.is_compiling():
        y, final, _errors = delta_forward_op(*inputs, resets, differentiable)
        return y, final
    tensors: Any = _contiguous(*inputs, resets)
    if differentiable:
        return DeltaFunction.apply(*tensors)
    y, final, _ = forward(*tensors, save=False)
    return y, final


def delta_rule_triton_step_(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One step in place. Shapes as of ``delta_rule_step_``, which has checked them."""
    q, k, v, beta = (z.contiguous()[:, None] for z in (q, k, v, beta))
    y, _, _ = forward(q, k, v, beta, state, None, save=False, in_place=True)
    return y[:, 0]
