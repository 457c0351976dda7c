"""Around the kernels: host functions and the registered operators. Importing this module imports Triton."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.ops.conv3x3.triton_kernels import (
    conv3x3_kernel,
    conv3x3_weight_gradient_kernel,
    pair_weights_kernel,
)
from srwm_agents.ops.kernel_helpers import INTERPRETED
from srwm_agents.ops.triton_support import on_device

# A launch, kernel[grid](…), is beyond what a type checker knows of these.
_kernel: Any = conv3x3_kernel
_weight_gradient_kernel: Any = conv3x3_weight_gradient_kernel
_pair_weights_kernel: Any = pair_weights_kernel

MIN_CHANNELS, MIDDLE_CHANNELS = 16, 32
"""Fewer than the first are images'."""


class Launch(NamedTuple):
    """How a kernel is launched."""

    block: int
    """Pairs of pixels that a program works on at once."""
    stages: int
    """Loads that are under way at once."""
    warps: int = 4


def _launch(channels: int, out: int, *, gradient: bool) -> Launch:
    """Of the convolution, or of its weight's gradient: the fastest of 20 to 80 for 1,935 images on an H200
    (experiments/performance/conv3x3.json); 64 channels, which were not tuned, fit into shared memory like this.
    """
    if max(channels, out) > MIDDLE_CHANNELS:
        return Launch(32, 1, warps=8) if gradient else Launch(64, 1, warps=8)
    if channels < MIN_CHANNELS:
        return Launch(64, 1, warps=2) if gradient else Launch(128, 1)
    return Launch(64, 3) if gradient else Launch(64, 2)


PROGRAMS = 2 if INTERPRETED else 176
"""That share the pixels in a weight's gradient, for each of three rows: four for each of a large GPU's
multiprocessors."""


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(x: Tensor, channels: int) -> Tensor:
    size = (len(x), channels, *x.shape[2:])
    return torch.empty(size, dtype=torch.bfloat16, device=x.device, memory_format=torch.channels_last)


def _pairs(x: Tensor) -> int:
    return len(x) * x.shape[2] * ((x.shape[3] + 1) // 2)


def _pair_weights(weight: Tensor, *, mirrored: bool = False) -> Tensor:
    """weight [OUT, IN, 3, 3] (mirrored: [IN, OUT, 3, 3]) -> [3, 4 · IN, 2 · OUT] bfloat16."""
    inputs, out = (len(weight), weight.shape[1]) if mirrored else (weight.shape[1], len(weight))
    pairs = torch.empty(3, 4 * inputs, 2 * out, dtype=torch.bfloat16, device=weight.device)
    with on_device(weight):
        _pair_weights_kernel[(3,)](weight.contiguous(), pairs, inputs, out, mirrored)
    return pairs


def _convolve(
    x: Tensor, weights: Tensor, *, relu_in: bool = False, bias: Tensor | None = None, relu_out: bool = False,
    gate: Tensor | None = None, add: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, H, W] channels-last, weights as :func:`_pair_weights` makes them -> [N, O, H, W] channels-last."""
    (channels, height, width), out, pairs = x.shape[1:], weights.shape[2] // 2, _pairs(x)
    y = _empty(x, out)
    launch = _launch(channels, out, gradient=False)
    with on_device(x):
        _kernel[(math.ceil(pairs / launch.block),)](
            x, weights, bias, gate, add, y, pairs, height, width, channels, out,
            RELU_IN=relu_in, BIAS=bias is not None, RELU_OUT=relu_out, GATE=gate is not None, ADD=add is not None,
            BLOCK=launch.block, STAGES=launch.stages, WIDEN=INTERPRETED, num_warps=launch.warps,
        )  # fmt: skip
    return y


def _weight_gradient(x: Tensor, dy: Tensor, *, relu_in: bool = False) -> tuple[Tensor, Tensor]:
    """Gradients of weight [O, C, 3, 3] and bias [O], float32."""
    (channels, height, width), out, pairs = x.shape[1:], dy.shape[1], _pairs(x)
    launch = _launch(channels, out, gradient=True)
    programs = min(PROGRAMS, math.ceil(pairs / launch.block))
    shares = torch.empty(programs, 12 * channels + 1, 2 * out, dtype=torch.float32, device=x.device)
    with on_device(x):
        _weight_gradient_kernel[(3, programs)](
            x, dy, shares, pairs, height, width, channels, out, RELU_IN=relu_in,
            BLOCK=launch.block, STAGES=launch.stages, WIDEN=INTERPRETED, num_warps=launch.warps,
        )  # fmt: skip
    total = shares.sum(0)
    products = total[:-1].view(3, 4, channels, 2, out)
    # A weight of column c leads from pixel c of four to a pair's left pixel, and from pixel c + 1 to its right one.
    left, right = (products[:, p : 3 + p, :, p].permute(3, 2, 0, 1) for p in range(2))
    weight = torch.empty(out, channels, 3, 3, dtype=torch.float32, device=x.device)
    torch.add(left, right, out=weight)
    return weight, total[-1].view(2, out).sum(0)


@torch.library.custom_op("srwm_agents::conv3x3", mutates_args=())
def conv3x3_op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x bfloat16 [N, C, H, W], weight [O, C, 3, 3], bias float32 [O] -> bfloat16 [N, O, H, W], channels-last."""
    return _convolve(_channels_last(x), _pair_weights(weight), bias=bias)


@conv3x3_op.register_fake
def _(x, weight, bias):
    return _empty(x, len(weight))


@torch.library.custom_op("srwm_agents::conv3x3_input_gradient", mutates_args=())
def conv3x3_input_gradient_op(weight: Tensor, dy: Tensor) -> Tensor:
    """weight [O, C, 3, 3], dy [N, O, H, W] -> bfloat16 [N, C, H, W]."""
    return _convolve(_channels_last(dy), _pair_weights(weight, mirrored=True))


@conv3x3_input_gradient_op.register_fake
def _(weight, dy):
    return _empty(dy, weight.shape[1])


@torch.library.custom_op("srwm_agents::conv3x3_weight_gradient", mutates_args=())
def conv3x3_weight_gradient_op(x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    """x [N, C, H, W], dy [N, O, H, W] -> float32 [O, C, 3, 3] and, of the bias, [O]."""
    return _weight_gradient(_channels_last(x), _channels_last(dy))


@conv3x3_weight_gradient_op.register_fake
def _(x, dy):
    weight = torch.empty(dy.shape[1], x.shape[1], 3, 3, dtype=torch.float32, device=x.device)
    return weight, torch.empty(dy.shape[1], dtype=torch.float32, device=x.device)


def _conv3x3_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _conv3x3_gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    dx = conv3x3_input_gradient_op(weight, dy) if needs_x else None
    if not needs_weight and not needs_bias:
        return dx, None, None
    dweight, dbias = conv3x3_weight_gradient_op(x, dy)
    return dx, dweight.to(weight.dtype) if needs_weight else None, dbias.to(weight.dtype) if needs_bias else None


conv3x3_op.register_autograd(_conv3x3_gradient, setup_context=_conv3x3_context)


@torch.library.custom_op("srwm_agents::residual_block", mutates_args=())
def residual_block_op(
    x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor
) -> tuple[Tensor, Tensor]:
    """x bfloat16 [N, C, H, W], weights [C, C, 3, 3], biases float32 [C] -> y, and relu of the first convolution's
    output for the backward pass; both like x, channels-last.
    """
    x = _channels_last(x)
    hidden = _convolve(x, _pair_weights(weight_1), relu_in=True, bias=bias_1, relu_out=True)
    return _convolve(hidden, _pair_weights(weight_2), bias=bias_2, add=x), hidden


@residual_block_op.register_fake
def _(x, weight_1, bias_1, weight_2, bias_2):
    return _empty(x, x.shape[1]), _empty(x, x.shape[1])


@torch.library.custom_op("srwm_agents::residual_block_backward", mutates_args=())
def residual_block_backward_op(
    x: Tensor, hidden: Tensor, weight_1: Tensor, weight_2: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x (bfloat16), weight_1, bias_1, weight_2, bias_2 (float32)."""
    x, dy = _channels_last(x), _channels_last(dy)
    dhidden = _convolve(dy, _pair_weights(weight_2, mirrored=True), gate=hidden)
    dx = _convolve(dhidden, _pair_weights(weight_1, mirrored=True), gate=x, add=dy)
    return dx, *_weight_gradient(x, dhidden, relu_in=True), *_weight_gradient(hidden, dy)


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
