"""What Triton kernels of several ops share. Importing this module imports Triton."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tile_offsets(i, j, WIDTH: tl.constexpr, LANE_COLUMNS: tl.constexpr):
    """Offsets [J, I] of a row-major [I, J] matrix of ``WIDTH`` columns.

    Tiles lie transposed in registers, and a thread gets at most ``LANE_COLUMNS`` neighbouring columns (4, without the
    hint), hence more rows: most reductions of the memories' kernels run over rows, and rows in one thread need no
    shuffle. Columns come first because Triton, when told of no contiguity at all, deals out the first axis first.
    """
    return tl.max_contiguous(i[None, :] * WIDTH + j[:, None], (LANE_COLUMNS, 1))


@triton.jit
def segment_start(resets_ptr, t):
    """First step of the segment that step ``t`` is in: the last reset at or before it, or 0; and whether it is one."""
    start = tl.minimum(t, -1)
    top = t
    while (start < 0) & (top >= 0):
        at = top - tl.arange(0, 64)
        is_reset = tl.load(resets_ptr + at, mask=at >= 0, other=0) != 0
        start = tl.max(tl.where(is_reset, at, -1), axis=0)
        top -= 64
    return tl.maximum(start, 0), start >= 0


@triton.jit
def segment_stop(resets_ptr, t, T):
    """One past the last step of the segment that starts at step ``t``: the first reset after it, or T."""
    stop = T
    bottom = t + 1
    while (stop == T) & (bottom < T):
        at = bottom + tl.arange(0, 64)
        is_reset = tl.load(resets_ptr + at, mask=at < T, other=0) != 0
        stop = tl.min(tl.where(is_reset, at, T), axis=0)
        bottom += 64
    return stop


@triton.jit
def row_column_channel(at, C: tl.constexpr, W: tl.constexpr):
    """Row, column and channel of entry ``at`` of an image in channels-last layout, ``W`` pixels wide."""
    return at // (C * W), (at // C) % W, at % C


@triton.jit
def bfloat16_operand(x, WIDEN: tl.constexpr):
    """Rounded to bfloat16; for Triton's interpreter, whose products know no bfloat16, widened again."""
    rounded = x.to(tl.float32).to(tl.bfloat16)
    return rounded.to(tl.float32) if WIDEN else rounded


@triton.jit
def tanh(x):
    """Hyperbolic tangent of float32, of absolute error about 1e-7; Triton's own is a library's, on a GPU only."""
    return 2 * tl.sigmoid(2 * x) - 1


INTERPRETED = not isinstance(tile_offsets, triton.runtime.JITFunction)
"""Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when Triton was imported)."""
