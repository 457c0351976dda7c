"""The delta rule's operators, forward and backward over time: one pair for each kind of kernels, registered here.

A pair is made of two functions that launch the kernels. What it is to PyTorch is the same for all: schema, fake
tensors, gradient, rules for ``vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.transforms import Mapped, fold_all, transformable, unfold
from srwm_agents.ops.triton_support import differentiable


class Kernels(NamedTuple):
    """How one kind of kernels is launched; arguments as of the operators below."""

    forward: Callable[..., None]
    """(q, k, v, beta, state, resets, y, final, saved or None): writes the last three."""
    backward: Callable[..., None]
    """(q, k, v, beta, state, resets, final, saved, dy, dfinal, dq, dk, dv, dbeta, dstate or None): the last five."""
    saved_shape: Callable[[Tensor, Tensor], tuple[int, ...]]
    """(q, v) -> shape of ``saved``, whose first two dimensions are B and H."""
    reads_state: Callable[[Tensor | None], bool]
    """resets -> whether ``backward`` reads the state that was given."""


class Operators(NamedTuple):
    """A registered pair."""

    forward_op: Any
    forward: Callable[..., Any]
    """Called in the operator's place; see :func:`srwm_agents.ops.transforms.transformable`."""


def _backward_outputs(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, final: Tensor, need_dstate: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Empty dq, dk, dv, dbeta, dstate."""
    dq, dk, dv, dbeta = (z.new_empty(z.shape) for z in (q, k, v, beta))
    return dq, dk, dv, dbeta, final.new_empty(final.shape if need_dstate else (0,))


def register(name: str, kernels: Kernels) -> Operators:
    """Register ``srwm_agents::{name}_forward`` and ``srwm_agents::{name}_backward``."""

    def forward_outputs(q: Tensor, v: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Empty y, final and saved."""
        batch, _, heads, dim = q.shape
        final = torch.empty((batch, heads, dim, v.shape[-1]), dtype=torch.float32, device=q.device)
        shape = kernels.saved_shape(q, v) if save else (0,)
        return v.new_empty(v.shape), final, torch.empty(shape, dtype=torch.float32, device=q.device)

    def forward(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None, save: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k [B, T, H, D], v [B, T, H, O], beta [B, T, H], state [B, H, D, O], resets [B, T] -> y [B, T, H, O],
        final, saved [B, H, …], which is for the backward operator and empty unless ``save``."""
        y, final, saved = forward_outputs(q, v, save)
        kernels.forward(q, k, v, beta, state, resets, y, final, saved if save else None)
        return y, final, saved

    forward_op = torch.library.custom_op(f"srwm_agents::{name}_forward", forward, mutates_args=())

    @forward_op.register_fake
    def _(q, k, v, beta, state, resets, save):
        return forward_outputs(q, v, save)

    @torch.library.custom_op(f"srwm_agents::{name}_backward", mutates_args=())
    def backward_op(
        q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None,
        final: Tensor, saved: Tensor, dy: Tensor | None, dfinal: Tensor | None, need_dstate: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """dq, dk, dv, dbeta in their inputs' shapes and dtypes, dstate [B, H, D, O] (empty unless ``need_dstate``).

        ``dy`` and ``dfinal`` are the gradients of the forward operator's outputs, None for zeros.
        """
        dy = torch.zeros_like(v) if dy is None else dy
        dq, dk, dv, dbeta, dstate = _backward_outputs(q, k, v, beta, final, need_dstate)
        kernels.backward(
            q, k, v, beta, state, resets, final, saved, dy, dfinal, dq, dk, dv, dbeta, dstate if need_dstate else None
        )
        return dq, dk, dv, dbeta, dstate

    @backward_op.register_fake
    def _(q, k, v, beta, state, resets, final, saved, dy, dfinal, need_dstate):
        return _backward_outputs(q, k, v, beta, final, need_dstate)

    def vmap_backward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        size, need_dstate = info.batch_size, arguments[-1]
        *grads, dstate = call_backward(*fold_all(arguments, mapped, size, (*[0] * 10, None)))
        outputs = *(unfold(grad, size, 0) for grad in grads), unfold(dstate, size, 0) if need_dstate else dstate
        return outputs, (0, 0, 0, 0, 0 if need_dstate else None)

    call_backward = transformable(backward_op, vmap=vmap_backward)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, state, resets, ctx.save = inputs
        ctx.save_for_backward(*tensors, state if kernels.reads_state(resets) else None, resets, *output[1:])
        ctx.need_dstate = ctx.needs_input_grad[4]
        ctx.mark_non_differentiable(output[-1])
        ctx.set_materialize_grads(False)

    def gradient(
        ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _dsaved: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if not ctx.save:
            raise RuntimeError(f"{name}_forward was called with save=False: it kept nothing to differentiate through")
        *grads, dstate = call_backward(*ctx.saved_tensors, dy, dfinal, ctx.need_dstate)
        return *grads, dstate if ctx.need_dstate else None, None, None

    def vmap_forward(info: Any, mapped: Mapped, *arguments: Any) -> tuple[Any, Any]:
        # The caller sees no gradient outside.
        size, save = info.batch_size, arguments[-1] or differentiable(*arguments[:5])
        y, final, saved = call_forward(*fold_all((*arguments[:-1], save), mapped, size, (*[0] * 6, None)))
        outputs = unfold(y, size, 0), unfold(final, size, 0), unfold(saved, size, 0) if save else saved
        return outputs, (0, 0, 0 if save else None)

    call_forward = transformable(
        forward_op, launch=forward, vmap=vmap_forward, setup_context=setup_context, backward=gradient
    )
    return Operators(forward_op, call_forward)
