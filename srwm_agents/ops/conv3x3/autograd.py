"""Around the kernels: host functions and the registered operators. Importing this module imports Triton."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from srwm_agents.ops.conv3x3.triton_kernels import conv3x3_kernel, conv3x3_weight_gradient_kernel
from srwm_agents.ops.kernel_helpers import INTERPRETED
from srwm_agents.ops.triton_support import on_device

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_kernel: Any = conv3x3_kernel
_weight_gradient_kernel: Any = conv3x3_weight_gradient_kernel

BLOCK = 128
"""Pixels that a program works on at once."""
WARPS = 4
ROWS = 64
"""Rows of a weight's gradient that a program makes."""
PROGRAMS = 3 if INTERPRETED else 528
"""That share the pixels in the weight's gradient: four for each of a large GPU's multiprocessors."""


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor, channels: int) -> Tensor:
    size = (len(x), channels, *x.shape[2:])
    return torch.empty(size, dtype=torch.bfloat16, device=x.device, memory_format=torch.channels_last)


def _taps(weight: Tensor) -> Tensor:
    """weight [OUT, IN, 3, 3] -> [9, IN, OUT] bfloat16, for the convolution."""
    return weight.permute(2, 3, 1, 0).to(torch.bfloat16, memory_format=torch.contiguous_format)


def _mirrored_taps(weight: Tensor) -> Tensor:
    """weight [OUT, IN, 3, 3] -> [9, OUT, IN] bfloat16, for the gradient of the input: windows are mirrored."""
    return weight.flip(2, 3).permute(2, 3, 0, 1).to(torch.bfloat16, memory_format=torch.contiguous_format)


def _convolve(
    x: Tensor, taps: Tensor, *, relu: bool, bias: Tensor | None = None, gate: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, H, W] channels-last, taps [3, 3, C, O] -> [N, O, H, W] channels-last."""
    pixels, (height, width), (channels, out) = x[:, 0].numel(), x.shape[2:], taps.shape[2:]
    y = _empty(x, out)
    with on_device(x):
        _kernel[(triton.cdiv(pixels, BLOCK),)](
            x, taps, bias, gate, add, y, pixels, height, width, channels, out,
            RELU=relu, BIAS=bias is not None, GATE=gate is not None, ADD=add is not None,
            BLOCK=BLOCK, WIDEN=INTERPRETED, num_warps=WARPS,
        )  # fmt: skip
    return y


def _weight_gradient(x: Tensor, dy: Tensor, *, relu: bool) -> tuple[Tensor, Tensor]:
    """Gradients of weight [O, C, 3, 3] and bias [O], float32."""
    pixels, (channels, height, width), out = x[:, 0].numel(), x.shape[1:], dy.shape[1]
    groups, programs = triton.cdiv(9 * channels + 1, ROWS), min(PROGRAMS, triton.cdiv(pixels, BLOCK))
    shares = torch.empty(programs, groups * ROWS, out, dtype=torch.float32, device=x.device)
    with on_device(x):
        _weight_gradient_kernel[(groups, programs)](
            x, dy, shares, pixels, height, width, channels, out,
            RELU=relu, ROWS=ROWS, BLOCK=BLOCK, WIDEN=INTERPRETED, num_warps=WARPS,
        )  # fmt: skip
    gradient = shares.sum(0)
    weight = gradient[: 9 * channels].view(3, 3, channels, out).permute(3, 2, 0, 1).contiguous()
    return weight, gradient[9 * channels].clone()


@torch.library.custom_op("srwm_agents::conv3x3", mutates_args=())
def conv3x3_op(x: Tensor, weight: Tensor) -> Tensor:
    """x bfloat16 [N, C, H, W], weight [O, C, 3, 3] -> bfloat16 [N, O, H, W], channels-last."""
    return _convolve(_channels_last(x), _taps(weight), relu=False)


@conv3x3_op.register_fake
def _(x, weight):
    return _empty(x, len(weight))


@torch.library.custom_op("srwm_agents::conv3x3_backward", mutates_args=())
def conv3x3_backward_op(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, bfloat16, and of weight, float32."""
    x, dy = _channels_last(x), _channels_last(dy)
    return _convolve(dy, _mirrored_taps(weight), relu=False), _weight_gradient(x, dy, relu=False)[0]


@conv3x3_backward_op.register_fake
def _(x, weight, dy):
    return _empty(x, x.shape[1]), torch.empty(weight.shape, dtype=torch.float32, device=x.device)


def _conv3x3_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _conv3x3_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    dx, dweight = conv3x3_backward_op(x, weight, dy)
    return dx, dweight.to(weight.dtype)


conv3x3_op.register_autograd(_conv3x3_gradient, setup_context=_conv3x3_context)


@torch.library.custom_op("srwm_agents::residual_block", mutates_args=())
def residual_block_op(
    x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor
) -> tuple[Tensor, Tensor]:
    """x bfloat16 [N, C, H, W], weights [C, C, 3, 3], biases float32 [C] -> y, and the first convolution's output for
    the backward pass; both like x, channels-last.
    """
    x = _channels_last(x)
    hidden = _convolve(x, _taps(weight_1), relu=True, bias=bias_1)
    return _convolve(hidden, _taps(weight_2), relu=True, bias=bias_2, add=x), hidden


@residual_block_op.register_fake
def _(x, weight_1, bias_1, weight_2, bias_2):
    return _empty(x, x.shape[1]), _empty(x, x.shape[1])


@torch.library.custom_op("srwm_agents::residual_block_backward", mutates_args=())
def residual_block_backward_op(
    x: Tensor, hidden: Tensor, weight_1: Tensor, weight_2: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (bfloat16), weight_1, bias_1, weight_2, bias_2 (float32)."""
    x, dy = _channels_last(x), _channels_last(dy)
    dhidden = _convolve(dy, _mirrored_taps(weight_2), relu=False, gate=hidden)
    dx = _convolve(dhidden, _mirrored_taps(weight_1), relu=False, gate=x, add=dy)
    return dx, *_weight_gradient(x, dhidden, relu=True), *_weight_gradient(hidden, dy, relu=True)


@residual_block_backward_op.register_fake
def _(x, hidden, weight_1, weight_2, dy):
    weight = torch.empty(weight_1.shape, dtype=torch.float32, device=x.device)
    bias = torch.empty(x.shape[1], dtype=torch.float32, device=x.device)
    return _empty(x, x.shape[1]), weight, bias, torch.empty_like(weight), torch.empty_like(bias)


def _residual_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight_1, _, weight_2, _ = inputs
    ctx.save_for_backward(x, output[1], weight_1, weight_2)
    ctx.mark_non_differentiable(output[1])


def _residual_gradient(ctx: Any, dy: Tensor, _dhidden: Tensor | None) -> tuple[Tensor, ...]:
    x, hidden, weight_1, weight_2 = ctx.saved_tensors
    dx, *others = residual_block_backward_op(x, hidden, weight_1, weight_2, dy)
    return dx, *(gradient.to(weight_1.dtype) for gradient in others)


residual_block_op.register_autograd(_residual_gradient, setup_context=_residual_context)
