"""The delta rule on compiled kernels for a CPU: how they are called. Source: ``../compiled/delta.c``."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_void_p

from torch import Tensor

from srwm_agents.ops.compiled.library import (
    CHUNK,
    as_read,
    batch_strided,
    padded,
    pointer,
    run,
    threads_for,
    written_as_float,
)
from srwm_agents.ops.delta.operators import Kernels, register
from srwm_agents.ops.triton_support import differentiable


class DeltaCall(ctypes.Structure):
    """``DeltaCall`` of the source; what a kernel does not read or write may stay out."""

    _fields_ = (
        *((name, c_int64) for name in ("B", "T", "H", "D", "O", "saved_size", "state_stride", "threads")),
        *((name, c_void_p) for name in ("q", "k", "v", "beta", "state", "resets", "y", "final", "saved")),
        *((name, c_void_p) for name in ("dy", "dfinal", "dq", "dk", "dv", "dbeta", "dstate")),
    )


def _saved_size(steps: int, dim: int, out: int) -> int:
    """Numbers that the forward kernel saves of a sequence: a step's error, and a matrix every CHUNK steps."""
    return (steps + (steps + CHUNK - 1) // CHUNK * dim) * padded(out)


def _saved_shape(q: Tensor, v: Tensor) -> tuple[int, ...]:
    batch, steps, heads, dim = q.shape
    return batch, heads, _saved_size(steps, dim, v.shape[-1])


def _call(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, resets: Tensor | None) -> DeltaCall:
    batch, steps, heads, dim = q.shape
    out = v.shape[-1]
    return DeltaCall(
        B=batch, T=steps, H=heads, D=dim, O=out, saved_size=_saved_size(steps, dim, out),
        threads=threads_for(batch * steps * heads * dim * out),
        q=pointer(q), k=pointer(k), v=pointer(v), beta=pointer(beta), resets=pointer(resets),
    )  # fmt: skip


def _forward(q, k, v, beta, state, resets, y, final, saved) -> None:
    q, k, v, beta = (as_read(z) for z in (q, k, v, beta))
    resets = None if resets is None else resets.contiguous()
    call = _call(q, k, v, beta, resets)
    if state is not None:
        state = batch_strided(state)
        call.state, call.state_stride = pointer(state), state.stride(0)
    with written_as_float(y) as (y_float,):
        call.y, call.final, call.saved = pointer(y_float), pointer(final), pointer(saved)
        run("delta_forward", call)


def _backward(q, k, v, beta, state, resets, final, saved, dy, dfinal, dq, dk, dv, dbeta, dstate) -> None:
    q, k, v, beta, dy = (as_read(z) for z in (q, k, v, beta, dy))
    saved, resets, dfinal = (None if z is None else z.contiguous() for z in (saved, resets, dfinal))
    call = _call(q, k, v, beta, resets)
    call.saved, call.dy, call.dfinal, call.dstate = pointer(saved), pointer(dy), pointer(dfinal), pointer(dstate)
    with written_as_float(dq, dk, dv, dbeta) as grads:
        call.dq, call.dk, call.dv, call.dbeta = (pointer(grad) for grad in grads)
        run("delta_backward", call)


# What the backward kernel needs of the given state is in ``saved``.
delta_forward_op, delta_forward = register(
    "delta_cpu", Kernels(_forward, _backward, _saved_shape, reads_state=lambda resets: False)
)


def delta_rule_cpu(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The delta rule on compiled kernels. Arguments as of ``delta_rule``, which has checked them; T > 0."""
    y, final, _saved = delta_forward(q, k, v, beta, state, resets, differentiable(q, k, v, beta, state))
    return y, final
