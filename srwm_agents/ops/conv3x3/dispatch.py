"""The public ops: check their arguments, pick a backend, call it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.checks import check_backend, check_shape
from srwm_agents.ops.triton_support import use_kernels

CHANNELS = (16, 32, 64)
"""Widths that the kernels take: at more channels a library's convolutions fill the tensor cores."""
IMAGE_CHANNELS = 4
"""And for the input of a single convolution; fewer channels than a width are filled up with zeros."""


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """``conv2d(x, weight, bias, padding=1)`` for few channels.

    Args:
        x: [N, C, H, W].
        weight: [O, C, 3, 3]. The kernels' products are made of bfloat16 weights, summed in float32.
        bias: [O], or None.
        backend: "auto" | "naive" | "triton" (x bfloat16, C up to 64, O one of 16, 32, 64; channels-last). "auto" picks
            the fastest that can run; an explicit one never falls back.

    Returns:
        [N, O, H, W], in x's dtype.

    Raises:
        ValueError: a wrong shape; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run this here.
    """
    check_backend(backend)
    _check(x, "weight", weight)
    if bias is not None:
        check_shape("bias", bias, (len(weight),), "[O]")
    channels = x.shape[1]
    width = next((width for width in (IMAGE_CHANNELS, *CHANNELS) if channels <= width), channels)
    if _use_kernels(backend, x, len(weight), *((width,) if width > IMAGE_CHANNELS else ())):
        from srwm_agents.ops.conv3x3.autograd import conv3x3_op

        if width > channels:
            x, weight = (functional.pad(tensor, (0, 0, 0, 0, 0, width - channels)) for tensor in (x, weight))
        return conv3x3_op(x, weight, bias)
    return functional.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), padding=1)


def residual_block(
    x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor, *, backend: str = "auto"
) -> Tensor:
    """``x + conv(relu(conv(relu(x))))``, a residual block before activation, for few channels.

    Two kernels forward and four backward. As single operations, four fifths of a block's memory traffic are
    activations, biases and sums that are read once; with 16 channels a library's convolutions are slower than that
    traffic, too.

    Source: He et al., ECCV 2016 (arXiv:1603.05027), figure 1(b) without the norms, as in IMPALA (Espeholt et al.,
    2018).

    Args:
        x: [N, C, H, W].
        weight_1, weight_2: [C, C, 3, 3]; bias_1, bias_2: [C]. The kernels' products are made of bfloat16 weights,
            summed in float32; the first convolution's output is rounded to bfloat16.
        backend: "auto" | "naive" | "triton" (x bfloat16, C one of 16, 32, 64; channels-last). "auto" picks the fastest
            that can run; an explicit one never falls back.

    Returns:
        [N, C, H, W], in x's dtype.

    Raises:
        ValueError: a wrong shape; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run this here.
    """
    check_backend(backend)
    _check(x, "weight_1", weight_1, x.shape[1])
    _check(x, "weight_2", weight_2, x.shape[1])
    for name, bias in (("bias_1", bias_1), ("bias_2", bias_2)):
        check_shape(name, bias, (x.shape[1],), "[C]")
    if _use_kernels(backend, x, x.shape[1]):
        from srwm_agents.ops.conv3x3.autograd import residual_block_op

        return residual_block_op(x, weight_1, bias_1, weight_2, bias_2)[0]
    hidden = functional.conv2d(x.relu(), weight_1.to(x.dtype), bias_1.to(x.dtype), padding=1)
    return x + functional.conv2d(hidden.relu(), weight_2.to(x.dtype), bias_2.to(x.dtype), padding=1)


def _check(x: Tensor, name: str, weight: Tensor, out: int | None = None) -> None:
    if x.dim() != 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected [N, C, H, W]")
    shape = (len(weight) if out is None else out, x.shape[1], 3, 3)
    check_shape(name, weight, shape, "[O, C, 3, 3]" if out is None else "[C, C, 3, 3]")


def _use_kernels(backend: str, x: Tensor, *widths: int) -> bool:
    return use_kernels(backend, x, dtypes=(torch.bfloat16,), why_not=_why_not_triton(x, *widths)) and x.numel() > 0


def _why_not_triton(x: Tensor, *widths: int) -> str | None:
    for width in widths:
        if width not in CHANNELS:
            return f"it takes {', '.join(map(str, CHANNELS))} channels, not {width}"
    if x.shape[1:].numel() >= 2**31 // 64:
        return f"it takes smaller images than {list(x.shape[1:])}"
    return None
