"""The public op: checks its arguments, picks a backend, calls it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.checks import check_backend, check_shape
from srwm_agents.ops.triton_support import use_kernels


def norm_pool(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    residual: Tensor | None = None,
    slope: float = 0.0,
    pool: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    backend: str = "auto",
) -> Tensor:
    """``max_pool2d(leaky_relu(batch_norm(x) + residual, slope), 2)`` with few passes over memory.

    As single operations these are most of a small image network's training: each reads and writes the largest tensors
    that there are. The kernels read x twice and write what is left after pooling; backward they read it once more.
    Batch norm is Ioffe & Szegedy's (ICML 2015, algorithm 1), as ``torch.nn.functional.batch_norm`` does it: normalised
    with the batch's biased variance, the running one moved towards the unbiased.

    Args:
        x: [N, C, H, W].
        weight, bias, running_mean, running_var: [C]; the last two are moved in place in training.
        training: normalise with the batch's statistics, not with the running ones.
        residual: [N, C, H, W], added before the activation.
        slope: of the activation below 0; 0 is ReLU, 1 no activation.
        pool: keep the largest of each 2×2 window; an odd last row or column is dropped.
        momentum: by which the running statistics move.
        eps: added to the variance.
        backend: "auto" | "naive" | "triton" (in training, x of float32 or bfloat16, computed in channels-last layout).
            "auto" picks the fastest that can run; an explicit one never falls back.

    Returns:
        [N, C, H // 2, W // 2] with pooling, else [N, C, H, W].

    Raises:
        ValueError: a wrong shape; a negative slope; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run this here.
    """
    check_backend(backend)
    if x.dim() != 4:
        raise ValueError(f"x has shape {list(x.shape)}, expected [N, C, H, W]")
    for name, entry in {
        "weight": weight,
        "bias": bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }.items():
        check_shape(name, entry, x.shape[1:2], "[C]")
    if residual is not None:
        check_shape("residual", residual, x.shape, "[N, C, H, W]")
    if slope < 0:
        raise ValueError(f"slope is {slope}, expected at least 0")
    if use_kernels(backend, x, why_not=_why_not_triton(x, training)) and x.numel() > 0:
        from srwm_agents.ops.norm_pool.autograd import norm_pool_op

        residual = None if residual is None else residual.to(x.dtype)
        y, _, _, mean, variance = norm_pool_op(x, weight, bias, residual, pool, slope, eps)
        with torch.no_grad():
            pixels = x.numel() // x.shape[1]
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_(variance.to(running_var.dtype) * (pixels / max(1, pixels - 1)), momentum)
        return y
    y = functional.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    if residual is not None:
        y = y + residual
    if pool:
        y = functional.max_pool2d(y, 2)
    return y if slope == 1 else functional.leaky_relu(y, slope)


def _why_not_triton(x: Tensor, training: bool) -> str | None:
    if not training:
        return "it is for training; with running statistics nothing needs summing up"
    if x.shape[1:].numel() >= 2**31:
        return f"it takes images of fewer than 2**31 numbers, not {list(x.shape[1:])}"
    return None
