"""Triton kernels of batch norm, residual, leaky ReLU and 2×2 max-pooling, on images in channels-last layout.

Sums over a channel are made by a fixed number of programs, each with a share of the pixels, so that they are the same
every time. Everything else is a pass over blocks of one image, flattened with channels innermost: ``SIDE`` is the side
of a pooling window, 2, or 1 where nothing is pooled and each pixel is a window of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from srwm_agents.ops.kernel_helpers import row_column_channel


@triton.jit
def norm_pool_moments_kernel(x_ptr, share_ptr, M, C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """x [M, C] -> share [programs, 2, C]: sums of x - x[0] and of its square.

    Taken from the first pixel, and not from zero, so that a mean far from zero costs the variance no digits.
    """
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = c < C
    origin = tl.load(x_ptr + c, mask=real, other=0.0).to(tl.float32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    squares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for turn in range((M - program * ROWS + programs * ROWS - 1) // (programs * ROWS)):
        m = (program + turn * programs) * ROWS + tl.arange(0, ROWS)
        mask = (m < M)[:, None] & real[None, :]
        value = tl.load(x_ptr + m[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - origin[None, :], 0.0)
        total += value
        squares += value * value
    share_ptr += program * 2 * C + c
    tl.store(share_ptr, tl.sum(total, 0), mask=real)
    tl.store(share_ptr + C, tl.sum(squares, 0), mask=real)


@triton.jit
def norm_pool_forward_kernel(
    x_ptr, residual_ptr, scale_ptr, shift_ptr, y_ptr, kept_ptr, tap_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    SIDE: tl.constexpr, SLOPE: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x, residual [N, H, W, C], scale and shift [C] -> y [N, OH, OW, C]; where SIDE is 2 also, of the same shape, what
    the backward pass needs of each window's largest: kept, its x, and tap int8, 2 · row + column.
    """
    image = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < OH * OW * C
    a, b, c = row_column_channel(at, C, OW)
    scale = tl.load(scale_ptr + c, mask=inside, other=0.0)
    shift = tl.load(shift_ptr + c, mask=inside, other=0.0)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    kept = tl.zeros((BLOCK,), tl.float32)
    tap = tl.zeros((BLOCK,), tl.int32)
    for row in tl.static_range(SIDE):
        for column in tl.static_range(SIDE):
            pixel = image * H * W * C + ((SIDE * a + row) * W + SIDE * b + column) * C + c
            x = tl.load(x_ptr + pixel, mask=inside, other=0.0).to(tl.float32)
            value = x * scale + shift
            if RESIDUAL:
                value += tl.load(residual_ptr + pixel, mask=inside, other=0.0).to(tl.float32)
            better = (value > best) | (value != value)  # NaN wins, as in PyTorch
            best = tl.where(better, value, best)
            kept = tl.where(better, x, kept)
            tap = tl.where(better, SIDE * row + column, tap)
    # The activation rises everywhere, so that it commutes with the pooling: a quarter of the work.
    y = tl.where(best > 0, best, best * SLOPE)
    out = image * OH * OW * C + at
    tl.store(y_ptr + out, y, mask=inside)
    if SIDE == 2:
        tl.store(kept_ptr + out, kept, mask=inside)
        tl.store(tap_ptr + out, tap.to(tl.int8), mask=inside)


@triton.jit
def norm_pool_sums_kernel(
    dy_ptr, y_ptr, kept_ptr, mean_ptr, rstd_ptr, share_ptr, M,
    C: tl.constexpr, SLOPE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dy, y, kept [M, C] (kept is x where nothing is pooled) -> share [programs, 2, C]: sums of the gradient before the
    activation, and of its product with the normalised x. Pixels that are no window's largest have none.
    """
    program = tl.program_id(0).to(tl.int64)
    programs = tl.num_programs(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    real = c < C
    mean = tl.load(mean_ptr + c, mask=real, other=0.0)[None, :]
    rstd = tl.load(rstd_ptr + c, mask=real, other=0.0)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    products = tl.zeros((ROWS, COLUMNS), tl.float32)
    for turn in range((M - program * ROWS + programs * ROWS - 1) // (programs * ROWS)):
        m = (program + turn * programs) * ROWS + tl.arange(0, ROWS)
        mask = (m < M)[:, None] & real[None, :]
        at = m[:, None] * C + c[None, :]
        dy = tl.load(dy_ptr + at, mask=mask, other=0.0).to(tl.float32)
        y = tl.load(y_ptr + at, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(kept_ptr + at, mask=mask, other=0.0).to(tl.float32)
        gradient = tl.where(y > 0, dy, dy * SLOPE)
        total += gradient
        products += gradient * (x - mean) * rstd
    share_ptr += program * 2 * C + c
    tl.store(share_ptr, tl.sum(total, 0), mask=real)
    tl.store(share_ptr + C, tl.sum(products, 0), mask=real)


@triton.jit
def norm_pool_backward_kernel(
    x_ptr, dy_ptr, y_ptr, tap_ptr, mean_ptr, rstd_ptr, factor_ptr, centre_ptr, slant_ptr, dx_ptr, dresidual_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, OH: tl.constexpr, OW: tl.constexpr,
    SIDE: tl.constexpr, SLOPE: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dy, y, tap [N, OH, OW, C] and x -> dx, dresidual [N, H, W, C].

    With g the gradient before the activation, dx = factor · (g - centre - slant · (x - mean) · rstd), where centre and
    slant are the means of g and of its product with the normalised x over the channel. An odd last row or column is in
    no window, and so g = 0 there, but not dx.
    """
    image = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    windows_high: tl.constexpr = (H + SIDE - 1) // SIDE
    windows_wide: tl.constexpr = (W + SIDE - 1) // SIDE
    inside = at < windows_high * windows_wide * C
    a, b, c = row_column_channel(at, C, windows_wide)
    pooled = inside & (a < OH) & (b < OW)
    out = image * OH * OW * C + (a * OW + b) * C + c
    dy = tl.load(dy_ptr + out, mask=pooled, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + out, mask=pooled, other=0.0).to(tl.float32)
    gradient = tl.where(y > 0, dy, dy * SLOPE)
    if SIDE == 2:
        tap = tl.load(tap_ptr + out, mask=pooled, other=-1)
    mean = tl.load(mean_ptr + c, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + c, mask=inside, other=0.0)
    factor = tl.load(factor_ptr + c, mask=inside, other=0.0)
    centre = tl.load(centre_ptr + c, mask=inside, other=0.0)
    slant = tl.load(slant_ptr + c, mask=inside, other=0.0)
    for row in tl.static_range(SIDE):
        for column in tl.static_range(SIDE):
            h = SIDE * a + row
            w = SIDE * b + column
            real = inside & (h < H) & (w < W)
            pixel = image * H * W * C + (h * W + w) * C + c
            x = tl.load(x_ptr + pixel, mask=real, other=0.0).to(tl.float32)
            g = gradient
            if SIDE == 2:
                g = tl.where(tap == SIDE * row + column, gradient, 0.0)
            tl.store(dx_ptr + pixel, factor * (g - centre - slant * (x - mean) * rstd), mask=real)
            if RESIDUAL:
                tl.store(dresidual_ptr + pixel, g, mask=real)
