"""Triton kernels of convolution and max-pooling on bytes.

A convolution at some pixels is a product of matrices: one row a pixel, with the 9 · C numbers of its patch, times the
weights. Patches are gathered from the image, which is small and stays in the cache. Bytes are whole numbers below 256
and so exact in bfloat16; the division by 255 comes after the sum.

Images are [N, C, H, W] in memory, as they are stored; outputs are in channels-last layout.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import bfloat16_operand


@triton.jit
def _patches(image_ptr, h, w, k, inside, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Number ``k`` (channel, row, column, in the weight's order) of the 3×3 patch around pixel (h, w), 0 outside."""
    at_h = h - 1 + (k // 3) % 3
    at_w = w - 1 + k % 3
    mask = inside & (k < 9 * C) & (at_h >= 0) & (at_h < H) & (at_w >= 0) & (at_w < W)
    return tl.load(image_ptr + (k // 9) * H * W + at_h * W + at_w, mask=mask, other=0)


@triton.jit
def conv_pool_forward_kernel(
    image_ptr, weight_ptr, y_ptr, tap_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    OUT: tl.constexpr, PATCH: tl.constexpr, BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """image [N, C, H, W], weight [OUT, C, 3, 3] -> y bfloat16 [N, OH, OW, OUT]; tap int8 of the same shape, which of
    the nine pixels of the window was largest, 3 · row + column.

    A program makes ``BLOCK`` pixels of an image's output. It computes each window's nine pixels anew, although windows
    overlap: products are cheaper here than sharing them would be.
    """
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    o = tl.arange(0, OUT)
    k = tl.arange(0, PATCH)
    inside = at < OH * OW
    oh = at // OW
    ow = at % OW
    image_ptr += n * C * H * W
    weight = tl.load(weight_ptr + o[None, :] * 9 * C + k[:, None], mask=k[:, None] < 9 * C, other=0.0)
    weight = bfloat16_operand(weight, WIDEN)
    best = tl.full((BLOCK, OUT), float("-inf"), tl.float32)
    tap = tl.full((BLOCK, OUT), 4, tl.int32)
    for row in tl.static_range(3):
        for column in tl.static_range(3):
            h = 2 * oh - 1 + row
            w = 2 * ow - 1 + column
            real = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
            patches = _patches(image_ptr, h[:, None], w[:, None], k[None, :], real[:, None], C, H, W)
            value = tl.dot(bfloat16_operand(patches, WIDEN), weight)
            better = real[:, None] & ((value > best) | (value != value))
            best = tl.where(better, value, best)
            tap = tl.where(better, 3 * row + column, tap)
    out = (n * OH * OW + at[:, None]) * OUT + o[None, :]
    tl.store(y_ptr + out, (best * (1.0 / 255.0)).to(tl.bfloat16), mask=inside[:, None])
    tl.store(tap_ptr + out, tap.to(tl.int8), mask=inside[:, None])


@triton.jit
def conv_pool_backward_kernel(
    image_ptr, dy_ptr, tap_ptr, share_ptr, N,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    OUT: tl.constexpr, PATCH: tl.constexpr, BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """image [N, C, H, W], dy and tap [N, OH, OW, OUT] -> share [programs, PATCH, OUT], to be summed over programs.

    Program p takes the images p, p + programs, … A pixel of the convolution's output is in at most four windows (see
    the pooling kernels); where it was a window's largest, it gets that window's gradient. So its gradient is made in
    registers, for the four pixels of a 2×2 patch from the same loads, and used at once.
    """
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    o = tl.arange(0, OUT)
    k = tl.arange(0, PATCH)
    total = tl.zeros((PATCH, OUT), tl.float32)
    for turn in range((N - program + programs - 1) // programs):
        n = program + turn * programs
        image = image_ptr + n * C * H * W
        dys = dy_ptr + n * OH * OW * OUT
        taps = tap_ptr + n * OH * OW * OUT
        for begin in range(0, OH * OW, BLOCK):
            at = begin + tl.arange(0, BLOCK)
            inside = at < OH * OW
            a = at // OW
            b = at % OW
            here = at[:, None] * OUT + o[None, :]
            right, below = (inside & (b + 1 < OW))[:, None], (inside & (a + 1 < OH))[:, None]
            dy_00 = tl.load(dys + here, mask=inside[:, None], other=0.0).to(tl.float32)
            dy_01 = tl.load(dys + here + OUT, mask=right, other=0.0).to(tl.float32)
            dy_10 = tl.load(dys + here + OW * OUT, mask=below, other=0.0).to(tl.float32)
            dy_11 = tl.load(dys + here + OW * OUT + OUT, mask=right & below, other=0.0).to(tl.float32)
            tap_00 = tl.load(taps + here, mask=inside[:, None], other=-1)
            tap_01 = tl.load(taps + here + OUT, mask=right, other=-1)
            tap_10 = tl.load(taps + here + OW * OUT, mask=below, other=-1)
            tap_11 = tl.load(taps + here + OW * OUT + OUT, mask=right & below, other=-1)
            for i in tl.static_range(2):
                for j in tl.static_range(2):
                    gradient = tl.where(tap_00 == 4 + 3 * i + j, dy_00, 0.0)
                    if j == 1:
                        gradient += tl.where(tap_01 == 3 + 3 * i, dy_01, 0.0)
                    if i == 1:
                        gradient += tl.where(tap_10 == 1 + j, dy_10, 0.0)
                    if i == 1 and j == 1:
                        gradient += tl.where(tap_11 == 0, dy_11, 0.0)
                    h = 2 * a + i
                    w = 2 * b + j
                    real = inside & (h < H) & (w < W)
                    patches = _patches(image, h[None, :], w[None, :], k[:, None], real[None, :], C, H, W)
                    total += tl.dot(bfloat16_operand(patches, WIDEN), bfloat16_operand(gradient, WIDEN))
    at = (program * PATCH + k[:, None]) * OUT + o[None, :]
    tl.store(share_ptr + at, total * (1.0 / 255.0))
