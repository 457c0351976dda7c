"""Around the kernels: host functions and the registered operator. Importing this module imports Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from srwm_agents.ops.conv_pool.triton_kernels import conv_pool_backward_kernel, conv_pool_forward_kernel
from srwm_agents.ops.kernel_helpers import INTERPRETED
from srwm_agents.ops.triton_support import on_device

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_forward_kernel: Any = conv_pool_forward_kernel
_backward_kernel: Any = conv_pool_backward_kernel

BLOCK = 128
"""Pixels of the output that a program works on at once."""
PROGRAMS = 1056
"""Of the backward pass, each with a share of the gradient: a fixed number, so that sums are the same everywhere."""


def _sizes(image: Tensor, out: int) -> dict[str, Any]:
    """The kernels' constants."""
    _, channels, height, width = image.shape
    patch = max(16, triton.next_power_of_2(9 * channels))
    return {
        "C": channels, "H": height, "W": width, "OH": (height + 1) // 2, "OW": (width + 1) // 2,
        "OUT": out, "PATCH": patch, "BLOCK": BLOCK, "WIDEN": INTERPRETED,
    }  # fmt: skip


def _empty(image: Tensor, out: int, dtype: torch.dtype) -> Tensor:
    size = (len(image), out, (image.shape[2] + 1) // 2, (image.shape[3] + 1) // 2)
    return torch.empty(size, dtype=dtype, device=image.device, memory_format=torch.channels_last)


@torch.library.custom_op("srwm_agents::conv_pool", mutates_args=())
def conv_pool_op(image: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """image uint8 [N, C, H, W], weight [O, C, 3, 3] -> y bfloat16 and taps int8, both [N, O, OH, OW] channels-last."""
    image, weight = image.contiguous(), weight.contiguous()
    sizes = _sizes(image, len(weight))
    y, taps = _empty(image, len(weight), torch.bfloat16), _empty(image, len(weight), torch.int8)
    grid = (len(image), triton.cdiv(sizes["OH"] * sizes["OW"], BLOCK))
    with on_device(image):
        _forward_kernel[grid](image, weight, y, taps, **sizes)
    return y, taps


@conv_pool_op.register_fake
def _(image, weight):
    return _empty(image, len(weight), torch.bfloat16), _empty(image, len(weight), torch.int8)


@torch.library.custom_op("srwm_agents::conv_pool_backward", mutates_args=())
def conv_pool_backward_op(image: Tensor, dy: Tensor, taps: Tensor) -> Tensor:
    """The weight's gradient, float32 [O, C, 3, 3]."""
    image = image.contiguous()
    dy, taps = (z.contiguous(memory_format=torch.channels_last) for z in (dy, taps))
    out, channels = dy.shape[1], image.shape[1]
    sizes = _sizes(image, out)
    programs = min(PROGRAMS, len(image))
    shares = torch.empty(programs, sizes["PATCH"], out, dtype=torch.float32, device=image.device)
    with on_device(image):
        _backward_kernel[(programs,)](image, dy, taps, shares, len(image), **sizes)
    return shares.sum(0)[: 9 * channels].T.reshape(out, channels, 3, 3).contiguous()


@conv_pool_backward_op.register_fake
def _(image, dy, taps):
    return torch.empty(dy.shape[1], image.shape[1], 3, 3, dtype=torch.float32, device=image.device)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], output[1])
    ctx.dtype = inputs[1].dtype
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, dy: Tensor, _dtaps: Tensor | None) -> tuple[None, Tensor]:
    image, taps = ctx.saved_tensors
    return None, conv_pool_backward_op(image, dy, taps).to(ctx.dtype)


conv_pool_op.register_autograd(_backward, setup_context=_setup_context)
