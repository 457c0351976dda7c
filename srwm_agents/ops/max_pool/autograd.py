"""Around the kernels: host functions and the registered operator. Importing this module imports Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from srwm_agents.ops.max_pool.triton_kernels import max_pool_backward_kernel, max_pool_forward_kernel
from srwm_agents.ops.triton_support import on_device

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = max_pool_forward_kernel
_backward_kernel: Any = max_pool_backward_kernel

BLOCK = 1024


def _launch(kernel: Any, first: Tensor, second: Tensor, third: Tensor, size: tuple[int, ...]) -> None:
    """``size`` of the larger image, [N, C, H, W]; a program for each ``BLOCK`` numbers of the smaller."""
    images, channels, height, width = size
    out_height, out_width = (height + 1) // 2, (width + 1) // 2
    grid = (images, triton.cdiv(out_height * out_width * channels, BLOCK))
    with on_device(first):
        kernel[grid](first, second, third, channels, height, width, out_height, out_width, BLOCK)


def _empty(like: Tensor, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _pooled(size: torch.Size) -> tuple[int, ...]:
    return (size[0], size[1], (size[2] + 1) // 2, (size[3] + 1) // 2)


@torch.library.custom_op("srwm_agents::max_pool", mutates_args=())
def max_pool_op(x: Tensor) -> tuple[Tensor, Tensor]:
    """x [N, C, H, W] -> y and taps (int8), both [N, C, OH, OW] in channels-last layout."""
    x = x.contiguous(memory_format=torch.channels_last)
    size = _pooled(x.shape)
    y, taps = _empty(x, size, x.dtype), _empty(x, size, torch.int8)
    _launch(_forward_kernel, x, y, taps, tuple(x.shape))
    return y, taps


@max_pool_op.register_fake
def _(x):
    size = _pooled(x.shape)
    return _empty(x, size, x.dtype), _empty(x, size, torch.int8)


@torch.library.custom_op("srwm_agents::max_pool_backward", mutates_args=())
def max_pool_backward_op(dy: Tensor, taps: Tensor, height: int, width: int) -> Tensor:
    """dx [N, C, height, width] in channels-last layout."""
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx = _empty(dy, (*dy.shape[:2], height, width), dy.dtype)
    _launch(_backward_kernel, dy, taps.contiguous(memory_format=torch.channels_last), dx, tuple(dx.shape))
    return dx


@max_pool_backward_op.register_fake
def _(dy, taps, height, width):
    return _empty(dy, (*dy.shape[:2], height, width), dy.dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(output[1])
    ctx.size = inputs[0].shape[2:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: Tensor, _dtaps: Tensor | None) -> Tensor:
    return max_pool_backward_op(dy, ctx.saved_tensors[0], *ctx.size)


max_pool_op.register_autograd(_backward, setup_context=_setup_context)
