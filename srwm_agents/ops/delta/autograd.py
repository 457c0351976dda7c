"""The delta rule on Triton kernels: how they are launched.

Importing this module imports Triton; the dispatcher does so only when it needs to.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from torch import Tensor

from srwm_agents.ops.delta.operators import Kernels, register
from srwm_agents.ops.delta.triton_kernels import delta_backward_kernel, delta_forward_kernel
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


def _saved_shape(q: Tensor, v: Tensor) -> tuple[int, ...]:
    """[B, H, T, O]: the errors."""
    batch, steps, heads, _ = q.shape
    return batch, heads, steps, v.shape[-1]


def _forward(q, k, v, beta, state, resets, y, final, saved) -> None:
    _, steps, heads, dim = q.shape
    with on_device(q):
        _forward_kernel[(len(q) * heads,)](
            *contiguous(q, k, v, beta, state, resets), y, final, saved, steps, heads,
            **_launch(dim, v.shape[-1], backward=False),
        )  # fmt: skip


def _backward(q, k, v, beta, state, resets, final, saved, dy, dfinal, dq, dk, dv, dbeta, dstate) -> None:
    _, steps, heads, dim = q.shape
    with on_device(q):
        _backward_kernel[(len(q) * heads,)](
            *contiguous(q, k, v, beta, state, resets, final, saved, dy, dfinal),
            dq, dk, dv, dbeta, dstate, steps, heads, **_launch(dim, v.shape[-1], backward=True),
        )  # fmt: skip


# The backward pass starts from the final state; it reads the initial one only to cross a reset.
delta_forward_op, delta_forward = register(
    "delta", Kernels(_forward, _backward, _saved_shape, reads_state=lambda resets: resets is not None)
)


def delta_rule_triton(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The delta rule on the kernels. Arguments as of ``delta_rule``, which has checked them; T > 0."""
    y, final, _saved = delta_forward(q, k, v, beta, state, resets, differentiable(q, k, v, beta, state))
    return y, final
