"""Triton kernels of a 3×3 convolution with padding 1, stride 1, in channels-last layout.

Pixels of all images are numbered through, M = N·H·W. A tap is one of the nine pixels of a 3×3 window, 3 · row + column.
With 16 or 32 channels a convolution is bounded by how often its input is read, so activations, bias, residual and gate
are part of it, and each saves a pass over device memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import bfloat16_operand


@triton.jit
def conv3x3_kernel(
    x_ptr, weight_ptr, bias_ptr, gate_ptr, add_ptr, y_ptr, M,
    H: tl.constexpr, W: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr,
    RELU: tl.constexpr, BIAS: tl.constexpr, GATE: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """x [M, IN], weight [9, IN, OUT], bias [OUT], gate and add [M, OUT] -> y [M, OUT]; all bfloat16, bias float32.

    y = (conv(x or, with RELU, relu(x)) + bias), where GATE: 0 at the pixels and channels whose gate is not above 0,
    where ADD: plus add. Sums are float32, y is rounded once.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    inside = lane < M - begin
    pixel = ((begin + lane) % (H * W)).to(tl.int32)
    h = pixel // W
    w = pixel % W
    i = tl.arange(0, IN)
    o = tl.arange(0, OUT)
    x_ptr += begin * IN
    total = tl.zeros((BLOCK, OUT), tl.float32)
    for tap in tl.static_range(9):
        row = tap // 3 - 1
        column = tap % 3 - 1
        real = inside & (h + row >= 0) & (h + row < H) & (w + column >= 0) & (w + column < W)
        x = tl.load(x_ptr + (lane + row * W + column)[:, None] * IN + i[None, :], mask=real[:, None], other=0.0)
        if RELU:
            x = tl.where(x < 0, 0.0, x.to(tl.float32))
        weight = tl.load(weight_ptr + tap * IN * OUT + i[:, None] * OUT + o[None, :])
        total = tl.dot(bfloat16_operand(x, WIDEN), bfloat16_operand(weight, WIDEN), total)
    if BIAS:
        total += tl.load(bias_ptr + o)[None, :]
    at = begin * OUT + lane[:, None] * OUT + o[None, :]
    if GATE:
        total = tl.where(tl.load(gate_ptr + at, mask=inside[:, None], other=0.0) > 0, total, 0.0)
    if ADD:
        total += tl.load(add_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(y_ptr + at, total.to(tl.bfloat16), mask=inside[:, None])


@triton.jit
def conv3x3_weight_gradient_kernel(
    x_ptr, dy_ptr, share_ptr, M,
    H: tl.constexpr, W: tl.constexpr, IN: tl.constexpr, OUT: tl.constexpr, RELU: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """x [M, IN], dy [M, OUT] -> share [programs, groups · ROWS, OUT] float32, to be summed over programs.

    Row tap · IN + channel of a share is the gradient of weight[tap, channel]; row 9 · IN is that of the bias, whose
    input is 1 everywhere; further rows are 0. A program makes ``ROWS`` rows from every programs-th block of pixels.
    """
    group = tl.program_id(0)
    program = tl.program_id(1).to(tl.int64)
    programs = tl.num_programs(1)
    k = group * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, BLOCK)
    o = tl.arange(0, OUT)
    tap = k // IN
    row = tap // 3 - 1
    column = tap % 3 - 1
    shift = (row * W + column) * IN + k % IN
    total = tl.zeros((ROWS, OUT), tl.float32)
    for turn in range((M - program * BLOCK + programs * BLOCK - 1) // (programs * BLOCK)):
        begin = (program + turn * programs) * BLOCK
        inside = lane < M - begin
        pixel = ((begin + lane) % (H * W)).to(tl.int32)
        h = (pixel // W)[None, :] + row[:, None]
        w = (pixel % W)[None, :] + column[:, None]
        real = inside[None, :] & (tap < 9)[:, None] & (h >= 0) & (h < H) & (w >= 0) & (w < W)
        x = tl.load(x_ptr + begin * IN + lane[None, :] * IN + shift[:, None], mask=real, other=0.0)
        if RELU:
            x = tl.where(x < 0, 0.0, x.to(tl.float32))
        x = tl.where((k == 9 * IN)[:, None], 1.0, x.to(tl.float32))
        dy = tl.load(dy_ptr + begin * OUT + lane[:, None] * OUT + o[None, :], mask=inside[:, None], other=0.0)
        total = tl.dot(bfloat16_operand(x, WIDEN), bfloat16_operand(dy, WIDEN), total)
    at = (program * tl.num_programs(0) * ROWS + k[:, None]) * OUT + o[None, :]
    tl.store(share_ptr + at, total)
