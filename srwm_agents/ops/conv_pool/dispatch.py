"""The public op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.checks import check_backend
from srwm_agents.ops.triton_support import use_kernels

MAX_PATCH = 64
"""The most numbers (9 · C) that a patch of the image may have for the kernels: it is one block of a matrix product."""
OUT_CHANNELS = (16, 32, 64)
"""Widths that the kernels take."""


def conv_pool(image: Tensor, weight: Tensor, *, backend: str = "auto") -> Tensor:
    """``max_pool2d(conv2d(image / 255, weight, padding=1), 3, stride=2, padding=1)``, from bytes to bfloat16.

    The first layer of an image encoder has the largest pictures and the fewest channels: as single operations, most of
    its time goes into writing numbers that are read once and thrown away. The kernels read bytes and write what is left
    after pooling; the backward pass makes the weight's gradient from the same bytes. Images get no gradient.

    Args:
        image: uint8 [N, C, H, W].
        weight: float32 [O, C, 3, 3]; the products are made of bfloat16 weights and exact bytes, summed in float32.
        backend: "auto" | "naive" | "triton" (C up to 7, O one of 16, 32, 64). "auto" picks the fastest that can run; an
            explicit one never falls back.

    Returns:
        bfloat16 [N, O, (H + 1) // 2, (W + 1) // 2].

    Raises:
        ValueError: a wrong shape or dtype; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run this here.
    """
    check_backend(backend)
    if image.dim() != 4 or image.dtype != torch.uint8:
        raise ValueError(f"image is {image.dtype} {list(image.shape)}, expected uint8 [N, C, H, W]")
    if weight.dim() != 4 or weight.shape[1:] != (image.shape[1], 3, 3):
        raise ValueError(f"weight has shape {list(weight.shape)}, expected [O, {image.shape[1]}, 3, 3]")
    why_not = _why_not_triton(image, weight)
    if use_kernels(backend, image, dtypes=(torch.uint8,), why_not=why_not) and image.numel() > 0:
        from srwm_agents.ops.conv_pool.autograd import conv_pool_op

        return conv_pool_op(image, weight)[0]
    convolved = functional.conv2d(image.to(weight.dtype) / 255, weight.bfloat16().to(weight.dtype), padding=1)
    return functional.max_pool2d(convolved, 3, stride=2, padding=1).bfloat16()


def _why_not_triton(image: Tensor, weight: Tensor) -> str | None:
    if 9 * image.shape[1] > MAX_PATCH:
        return f"it takes at most {MAX_PATCH // 9} channels, not {image.shape[1]}"
    if len(weight) not in OUT_CHANNELS:
        return f"it takes {', '.join(map(str, OUT_CHANNELS))} output channels, not {len(weight)}"
    if image.shape[1:].numel() >= 2**31 // 9:
        return f"it takes smaller images than {list(image.shape[1:])}"
    return None
