"""Triton kernels of a 3×3 convolution with padding 1 and stride 1, in channels-last layout.

With 16 or 32 channels, what bounds a convolution is how often its input is read, not arithmetic. So activations,
biases, residuals and gates are part of it; and two neighbouring pixels of a line, a *pair*, are made at once. In each
of three lines they need the same four pixels, which lie side by side in memory: a product of [pairs, 4 · IN] and
[4 · IN, 2 · OUT] in place of three of [pixels, IN] and [IN, OUT] for each of the two.

Pairs of all images are numbered through, P = N·H·⌈W/2⌉; with an odd width a line's last pair is half outside.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import bfloat16_operand


@triton.jit
def _pairs(begin, lane, P, H: tl.constexpr, W: tl.constexpr):
    """Of the pairs ``begin + lane``: whether they exist, the row in the image, the pixel's number from ``base`` on,
    the column of their left pixels; and ``base``, the number of the first pair's line's first pixel.
    """
    WIDE: tl.constexpr = (W + 1) // 2
    line = begin // WIDE
    place = (begin % WIDE).to(tl.int32) + lane
    h = ((line % H).to(tl.int32) + place // WIDE) % H
    left = place % WIDE * 2
    return lane < P - begin, h, place // WIDE * W + left, left, line * W


@triton.jit
def conv3x3_kernel(
    x_ptr, weight_ptr, bias_ptr, gate_ptr, add_ptr, y_ptr, P,
    H: tl.constexpr, W: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
    RELU_IN: tl.constexpr, BIAS: tl.constexpr, RELU_OUT: tl.constexpr, GATE: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """x [N, H, W, IN], weight [3, 4 · IN, 2 · OUT], bias [OUT], gate and add [N, H, W, OUT] -> y [N, H, W, OUT]; all
    bfloat16, but bias float32.

    y is conv(x), with RELU_IN of relu(x); BIAS: plus bias; RELU_OUT: relu of that; GATE: 0 where gate is not above 0;
    ADD: plus add. Sums are float32, y is rounded once. A program makes ``BLOCK`` pairs.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    k = tl.arange(0, 4 * IN)
    o = tl.arange(0, 2 * OUT)
    inside, h, pixel, left, base = _pairs(begin, lane, P, H, W)
    x_ptr += base * IN
    column = left[:, None] + (k // IN - 1)[None, :]
    exists = inside[:, None] & (column >= 0) & (column < W)
    total = tl.zeros((BLOCK, 2 * OUT), tl.float32)
    for row in tl.range(0, 3, num_stages=STAGES):
        line = h + row - 1
        real = exists & ((line >= 0) & (line < H))[:, None]
        at = (pixel + (row - 1) * W - 1)[:, None] * IN + k[None, :]
        x = tl.load(x_ptr + at, mask=real, other=0.0)
        if RELU_IN:
            x = tl.where(x < 0, 0.0, x.to(tl.float32))
        weight = tl.load(weight_ptr + (row * 4 * IN + k[:, None]) * 2 * OUT + o[None, :])
        total = tl.dot(bfloat16_operand(x, WIDEN), bfloat16_operand(weight, WIDEN), total)
    if BIAS:
        total += tl.load(bias_ptr + o % OUT)[None, :]
    if RELU_OUT:
        total = tl.where(total < 0, 0.0, total)
    at = base * OUT + pixel[:, None] * OUT + o[None, :]
    real = inside[:, None] & (left[:, None] + o[None, :] // OUT < W)
    if GATE:
        total = tl.where(tl.load(gate_ptr + at, mask=real, other=0.0) > 0, total, 0.0)
    if ADD:
        total += tl.load(add_ptr + at, mask=real, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, total.to(tl.bfloat16), mask=real)


@triton.jit
def conv3x3_weight_gradient_kernel(
    x_ptr, dy_ptr, share_ptr, P,
    H: tl.constexpr, W: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, RELU_IN: tl.constexpr,
    BLOCK: tl.constexpr, STAGES: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """x [N, H, W, IN], dy [N, H, W, OUT] -> share [programs, 12 · IN + 1, 2 · OUT] float32, to be summed over programs.

    share[(row · 4 + j) · IN + i, p · OUT + o] is the sum over pairs of x at the j-th of the row's four pixels, channel
    i, times dy at the pair's p-th pixel, channel o; the last line is that of the bias, whose input is 1. A program
    makes one row's lines, from every programs-th block of pairs.
    """
    row = tl.program_id(0)
    program = tl.program_id(1).to(tl.int64)
    programs = tl.num_programs(1)
    lane = tl.arange(0, BLOCK)
    k = tl.arange(0, 4 * IN)
    o = tl.arange(0, 2 * OUT)
    total = tl.zeros((4 * IN, 2 * OUT), tl.float32)
    sums = tl.zeros((BLOCK, 2 * OUT), tl.float32)
    for turn in tl.range(0, (P - program * BLOCK + programs * BLOCK - 1) // (programs * BLOCK), num_stages=STAGES):
        inside, h, pixel, left, base = _pairs((program + turn * programs) * BLOCK, lane, P, H, W)
        line = h + row - 1
        column = left[None, :] + (k // IN - 1)[:, None]
        real = (inside & (line >= 0) & (line < H))[None, :] & (column >= 0) & (column < W)
        at = base * IN + (pixel + (row - 1) * W - 1)[None, :] * IN + k[:, None]
        x = tl.load(x_ptr + at, mask=real, other=0.0)
        if RELU_IN:
            x = tl.where(x < 0, 0.0, x.to(tl.float32))
        at = base * OUT + pixel[:, None] * OUT + o[None, :]
        dy = tl.load(dy_ptr + at, mask=inside[:, None] & (left[:, None] + o[None, :] // OUT < W), other=0.0)
        total = tl.dot(bfloat16_operand(x, WIDEN), bfloat16_operand(dy, WIDEN), total)
        if row == 0:
            sums += dy.to(tl.float32)
    share_ptr += program * (12 * IN + 1) * 2 * OUT
    tl.store(share_ptr + (row * 4 * IN + k[:, None]) * 2 * OUT + o[None, :], total)
    if row == 0:
        tl.store(share_ptr + 12 * IN * 2 * OUT + o, tl.sum(sums, 0))


@triton.jit
def pair_weights_kernel(weight_ptr, out_ptr, IN: tl.constexpr, OUT: tl.constexpr, MIRRORED: tl.constexpr):
    """weight of a convolution -> [3, 4 · IN, 2 · OUT] bfloat16, as :func:`conv3x3_kernel` reads it.

    weight is [OUT, IN, 3, 3]; with MIRRORED it is [IN, OUT, 3, 3], and the result is for the gradient of that
    convolution's input. Entry [row, j · IN + i, p · OUT + o] is the weight from the j-th of four pixels to the p-th of
    two: that of column j - p, or 0.
    """
    row = tl.program_id(0)
    k = tl.arange(0, 4 * IN)[:, None]
    n = tl.arange(0, 2 * OUT)[None, :]
    i, o = k % IN, n % OUT
    column = k // IN - n // OUT
    real = (column >= 0) & (column < 3)
    at = (i * OUT + o) * 9 + 8 - row * 3 - column if MIRRORED else (o * IN + i) * 9 + row * 3 + column
    weight = tl.load(weight_ptr + at, mask=real, other=0.0)
    tl.store(out_ptr + (row * 4 * IN + k) * 2 * OUT + n, weight.to(tl.bfloat16))
