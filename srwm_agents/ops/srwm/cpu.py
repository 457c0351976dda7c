"""The SRWM on compiled kernels for a CPU: how they are called. Source: ``../compiled/srwm.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p

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
from srwm_agents.ops.srwm.operators import NO_BLOCKS, Kernels, register
from srwm_agents.ops.srwm.types import Rule, SRWMState, SRWMWeights
from srwm_agents.ops.triton_support import differentiable

_Blocks = c_void_p * 4


class SRWMCall(ctypes.Structure):
    """``SRWMCall`` of the source; what a kernel does not read or write may stay out."""

    _fields_ = (
        *((name, c_int64) for name in ("B", "T", "H", "D", "O", "saved_size")),
        *((name, c_float) for name in ("decay", "limit")),
        *((name, c_int32) for name in ("unit_keys", "threads")),
        ("x", c_void_p), ("weights", _Blocks), ("state", _Blocks), ("state_stride", c_int64 * 4),
        ("resets", c_void_p), ("y", c_void_p), ("final", _Blocks), ("saved", c_void_p), ("dy", c_void_p),
        ("dfinal", _Blocks), ("dx", c_void_p), ("dweights", c_void_p), ("dstate", _Blocks),
    )  # fmt: skip


def _columns(dim: int, out: int) -> int:
    """Columns of a head's matrix, padded block by block."""
    return padded(out) + 2 * padded(dim) + padded(4)


def _saved_size(steps: int, dim: int, out: int) -> int:
    """Numbers that the forward kernel saves of a sequence: a row a step, and a matrix every CHUNK steps."""
    row = 2 * padded(dim) + _columns(dim, out) + 8
    return steps * row + (steps + CHUNK - 1) // CHUNK * dim * _columns(dim, out)


def _saved_shape(x: Tensor, wy: Tensor, limit: float) -> tuple[int, ...]:
    batch, steps, heads, dim = x.shape
    return batch, heads, _saved_size(steps, dim, wy.shape[-1])


def _pointers(blocks: Sequence[Tensor | None]) -> ctypes.Array[c_void_p]:
    return _Blocks(*(pointer(block) for block in blocks))


def _call(x, weights, resets, decay, unit_keys, limit) -> SRWMCall:
    batch, steps, heads, dim = x.shape
    out = weights[0].shape[-1]
    work = batch * steps * heads * dim * _columns(dim, out)
    return SRWMCall(
        B=batch, T=steps, H=heads, D=dim, O=out, saved_size=_saved_size(steps, dim, out),
        decay=decay, limit=limit, unit_keys=unit_keys, threads=threads_for(work),
        x=pointer(x), weights=_pointers(weights), resets=pointer(resets),
    )  # fmt: skip


def _forward(x, weights, state, resets, decay, unit_keys, limit, y, final, saved) -> None:
    x, *weights = (as_read(z) for z in (x, *weights))
    resets = None if resets is None else resets.contiguous()
    call = _call(x, weights, resets, decay, unit_keys, limit)
    if state[0] is not None:
        state = [batch_strided(block) for block in state]
        call.state, call.state_stride = _pointers(state), (c_int64 * 4)(*(block.stride(0) for block in state))
    with written_as_float(y) as (y_float,):
        call.y, call.final, call.saved = pointer(y_float), _pointers(final), pointer(saved)
        run("srwm_forward", call)


def _backward(
    x, weights, state, resets, decay, unit_keys, limit, final, saved, dy, dfinal, dx, shares, dstate
) -> None:  # fmt: skip
    x, dy, *weights = (as_read(z) for z in (x, dy, *weights))
    saved, resets, *dfinal = (None if z is None else z.contiguous() for z in (saved, resets, *dfinal))
    call = _call(x, weights, resets, decay, unit_keys, limit)
    call.saved, call.dy, call.dfinal = pointer(saved), pointer(dy), _pointers(dfinal)
    with written_as_float(dx) as (dx_float,):
        call.dx, call.dweights, call.dstate = pointer(dx_float), pointer(shares), _pointers(dstate)
        run("srwm_backward", call)


# What the backward kernel needs of the given state is in ``saved``.
srwm_forward_op, srwm_forward = register(
    "srwm_cpu", Kernels(_forward, _backward, _saved_shape, reads_state=lambda resets, limit: False)
)


def srwm_cpu(
    x: Tensor, weights: SRWMWeights, state: SRWMState | None, resets: Tensor | None, rule: Rule
) -> tuple[Tensor, SRWMState]:
    """The SRWM on compiled kernels. Arguments as of :func:`srwm_agents.ops.srwm.srwm`, it has checked them; T > 0."""
    save = differentiable(x, *weights, *(state or ()))
    y, *final, _saved = srwm_forward(x, *weights, *(state or NO_BLOCKS), resets, *rule, save)
    return y, SRWMState(*final)
