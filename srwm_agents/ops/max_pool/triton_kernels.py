"""Triton kernels of max-pooling, on images in channels-last layout: [N, H, W, C] in memory.

A program works on a block of one image's outputs (forward) or of its 2×2 patches of inputs (backward), flattened with
channels innermost, so that accesses are contiguous. The forward kernel keeps one byte an output: which of the nine taps
of its window was largest.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import row_column_channel


@triton.jit
def max_pool_forward_kernel(
    x_ptr, y_ptr, tap_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x [N, H, W, C] -> y [N, OH, OW, C], tap int8 of the same shape, 3 · row + column within the window."""
    image = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < OH * OW * C
    oh, ow, c = row_column_channel(at, C, OW)
    x_ptr += image * H * W * C
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    tap = tl.full((BLOCK,), 4, tl.int32)  # the window's middle is always in the image
    for row in tl.static_range(3):
        for column in tl.static_range(3):
            h = 2 * oh - 1 + row
            w = 2 * ow - 1 + column
            mask = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            value = tl.load(x_ptr + (h * W + w) * C + c, mask=mask, other=float("-inf")).to(tl.float32)
            better = (value > best) | (value != value)  # NaN wins, as in PyTorch
            best = tl.where(better, value, best)
            tap = tl.where(better, 3 * row + column, tap)
    out = image * OH * OW * C + at
    tl.store(y_ptr + out, best, mask=inside)
    tl.store(tap_ptr + out, tap.to(tl.int8), mask=inside)


@triton.jit
def max_pool_backward_kernel(
    dy_ptr, tap_ptr, dx_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dy, tap [N, OH, OW, C] -> dx [N, H, W, C].

    The patch of inputs (2a..2a+1, 2b..2b+1) is in the windows (a..a+1, b..b+1) only: four loads serve four stores, and
    nothing is added up in memory.
    """
    image = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < OH * OW * C
    a, b, c = row_column_channel(at, C, OW)
    windows = image * OH * OW * C + at
    below, right = inside & (a + 1 < OH), inside & (b + 1 < OW)
    dy_00 = tl.load(dy_ptr + windows, mask=inside, other=0.0).to(tl.float32)
    dy_01 = tl.load(dy_ptr + windows + C, mask=right, other=0.0).to(tl.float32)
    dy_10 = tl.load(dy_ptr + windows + OW * C, mask=below, other=0.0).to(tl.float32)
    dy_11 = tl.load(dy_ptr + windows + OW * C + C, mask=below & right, other=0.0).to(tl.float32)
    tap_00 = tl.load(tap_ptr + windows, mask=inside, other=-1)
    tap_01 = tl.load(tap_ptr + windows + C, mask=right, other=-1)
    tap_10 = tl.load(tap_ptr + windows + OW * C, mask=below, other=-1)
    tap_11 = tl.load(tap_ptr + windows + OW * C + C, mask=below & right, other=-1)
    # An even row is the middle one of one window, an odd row the last of one and the first of the next.
    dx_00 = tl.where(tap_00 == 4, dy_00, 0.0)
    dx_01 = tl.where(tap_00 == 5, dy_00, 0.0) + tl.where(tap_01 == 3, dy_01, 0.0)
    dx_10 = tl.where(tap_00 == 7, dy_00, 0.0) + tl.where(tap_10 == 1, dy_10, 0.0)
    dx_11 = (
        tl.where(tap_00 == 8, dy_00, 0.0)
        + tl.where(tap_01 == 6, dy_01, 0.0)
        + tl.where(tap_10 == 2, dy_10, 0.0)
        + tl.where(tap_11 == 0, dy_11, 0.0)
    )
    dx_ptr += image * H * W * C + (2 * a * W + 2 * b) * C + c
    odd_row, odd_column = inside & (2 * a + 1 < H), inside & (2 * b + 1 < W)
    tl.store(dx_ptr, dx_00, mask=inside)
    tl.store(dx_ptr + C, dx_01, mask=odd_column)
    tl.store(dx_ptr + W * C, dx_10, mask=odd_row)
    tl.store(dx_ptr + W * C + C, dx_11, mask=odd_row & odd_column)
