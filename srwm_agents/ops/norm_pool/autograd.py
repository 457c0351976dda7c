"""Around the kernels: host functions and the registered operator. Importing this module imports Triton."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from srwm_agents.ops.kernel_helpers import INTERPRETED
from srwm_agents.ops.norm_pool import triton_kernels as kernels
from srwm_agents.ops.triton_support import on_device

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_moments: Any = kernels.norm_pool_moments_kernel
_forward: Any = kernels.norm_pool_forward_kernel
_gradient_sums: Any = kernels.norm_pool_sums_kernel
_backward: Any = kernels.norm_pool_backward_kernel

BLOCK = 1024
ROWS = 32
"""Pixels that a program sums up at once."""
PROGRAMS = 4 if INTERPRETED else 1056
"""That share a channel's pixels: eight for each of a large GPU's multiprocessors."""


def _columns(channels: int) -> int:
    """Channels that a program sums up at once: few of the last block's lanes shall idle."""
    return 64 if channels % 64 == 0 else min(32, 1 << (channels - 1).bit_length())


def _sums(kernel: Any, operands: tuple[Tensor, ...], pixels: int, channels: int, **constants: Any) -> Tensor:
    """[2, C] from a kernel that leaves shares."""
    programs = min(PROGRAMS, math.ceil(pixels / ROWS))
    columns = _columns(channels)
    shares = torch.empty(programs, 2, channels, dtype=torch.float32, device=operands[0].device)
    grid = (programs, math.ceil(channels / columns))
    kernel[grid](*operands, shares, pixels, channels, **constants, ROWS=ROWS, COLUMNS=columns)
    return shares.sum(0)


def _sizes(x: Tensor, pool: bool) -> dict[str, int]:
    _, channels, height, width = x.shape
    side = 2 if pool else 1
    return {"C": channels, "H": height, "W": width, "OH": height // side, "OW": width // side, "SIDE": side}


def _empty(x: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    size = (*x.shape[:2], height, width)
    return torch.empty(size, dtype=dtype, device=x.device, memory_format=torch.channels_last)


def _outputs(x: Tensor, pool: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, and kept and taps where something is pooled."""
    sizes = _sizes(x, pool)
    y = _empty(x, sizes["OH"], sizes["OW"], x.dtype)
    if not pool:
        return y, x.new_empty(0), x.new_empty(0, dtype=torch.int8)
    return y, torch.empty_like(y), torch.empty_like(y, dtype=torch.int8)


@torch.library.custom_op("srwm_agents::norm_pool", mutates_args=())
def norm_pool_op(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, pool: bool, slope: float, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, kept, taps as the kernel makes them (empty without pooling), and the batch's mean and variance [C]."""
    x = x.contiguous(memory_format=torch.channels_last)
    residual = x if residual is None else residual.contiguous(memory_format=torch.channels_last)
    sizes = _sizes(x, pool)
    channels, pixels = sizes["C"], x.numel() // sizes["C"]
    y, kept, taps = _outputs(x, pool)
    with on_device(x):
        sums = _sums(_moments, (x,), pixels, channels) / pixels
        offset, squares = sums.unbind()
        mean = x[0, :, 0, 0].float() + offset
        variance = (squares - offset.square()).clamp(min=0)
        scale = weight.float() * (variance + eps).rsqrt()
        shift = bias.float() - mean * scale
        _forward[len(x), math.ceil(y[0].numel() / BLOCK)](
            x, residual, scale, shift, y, kept, taps, **sizes, SLOPE=slope, RESIDUAL=residual is not x, BLOCK=BLOCK
        )
    return y, kept, taps, mean, variance


@norm_pool_op.register_fake
def _(x, weight, bias, residual, pool, slope, eps):
    moments = [x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2)]
    return *_outputs(x, pool), *moments


@torch.library.custom_op("srwm_agents::norm_pool_backward", mutates_args=())
def norm_pool_backward_op(
    dy: Tensor, x: Tensor, weight: Tensor, y: Tensor, kept: Tensor, taps: Tensor, mean: Tensor, variance: Tensor,
    residual: bool, pool: bool, slope: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight, bias (float32) and of the residual (empty if there is none)."""
    dy, x = (z.contiguous(memory_format=torch.channels_last) for z in (dy, x))
    sizes = _sizes(x, pool)
    channels, pixels = sizes["C"], x.numel() // sizes["C"]
    dx = torch.empty_like(x)
    dresidual = torch.empty_like(x) if residual else x.new_empty(0)
    rstd = (variance + eps).rsqrt()
    with on_device(x):
        operands = (dy, y, kept if pool else x, mean, rstd)
        sums = _sums(_gradient_sums, operands, dy.numel() // channels, channels, SLOPE=slope)
        centre, slant = (sums / pixels).unbind()
        side = sizes["SIDE"]
        windows = math.ceil(sizes["H"] / side) * math.ceil(sizes["W"] / side) * channels
        _backward[len(x), math.ceil(windows / BLOCK)](
            *(x, dy, y, taps, mean, rstd, weight.float() * rstd, centre, slant, dx, dresidual),
            **sizes, SLOPE=slope, RESIDUAL=residual, BLOCK=BLOCK,
        )  # fmt: skip
    return dx, sums[1].clone(), sums[0].clone(), dresidual


@norm_pool_backward_op.register_fake
def _(dy, x, weight, y, kept, taps, mean, variance, residual, pool, slope, eps):
    dx = torch.empty_like(x, memory_format=torch.channels_last)
    dresidual = torch.empty_like(dx) if residual else x.new_empty(0)
    return dx, torch.empty_like(mean), torch.empty_like(mean), dresidual


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, _, residual, *ctx.options = inputs
    ctx.save_for_backward(x, weight, *output)
    ctx.has_residual = residual is not None
    ctx.mark_non_differentiable(*output[1:])


def _backward_pass(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weight, y, kept, taps, mean, variance = ctx.saved_tensors
    dx, dweight, dbias, dresidual = norm_pool_backward_op(
        dy, x, weight, y, kept, taps, mean, variance, ctx.has_residual, *ctx.options
    )
    return dx, dweight.to(weight.dtype), dbias.to(weight.dtype), dresidual if ctx.has_residual else None, *[None] * 3


norm_pool_op.register_autograd(_backward_pass, setup_context=_setup_context)
