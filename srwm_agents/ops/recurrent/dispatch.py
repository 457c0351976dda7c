"""The public ops of the LSTM and the GRU: check their arguments, pick a backend, call it."""

from __future__ import annotations

import torch
from torch import Tensor

from srwm_agents.ops.checks import check_alike, check_backend, check_shape, checked_resets
from srwm_agents.ops.recurrent.naive import gru_naive, lstm_naive
from srwm_agents.ops.triton_support import use_kernels, without_autocast

MAX_HIDDEN = 256
"""The most units that the kernels take: a step's gates live in registers."""


def lstm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    h: Tensor,
    c: Tensor,
    *,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run an LSTM layer's recurrence over a batch of sequences, given what its input gives to the gates.

    With σ the logistic function, * elementwise, and x = (x_i, x_f, x_g, x_o) in PyTorch's order, likewise the rows of
    ``weight`` and ``bias``:

        i = σ(x_i + h W_i^T + b_i)        f = σ(x_f + h W_f^T + b_f)
        g = tanh(x_g + h W_g^T + b_g)     o = σ(x_o + h W_o^T + b_o)
        c <- f * c + i * g                h <- o * tanh(c)

    With x = functional.linear(input, weight_ih, bias_ih), ``weight_hh`` and ``bias_hh`` this is ``torch.lstm_cell``,
    step by step. Source: Hochreiter & Schmidhuber, 1997, with the forget gates of Gers et al., 2000; without peepholes.
    Differentiable in every argument and through the final state. Works under ``torch.vmap`` and the transforms of
    ``torch.func``; second derivatives and forward mode with "naive" only.

    Args:
        x: [B, T, 4H], what the input gives to the gates' arguments.
        weight: [4H, H], from the state.
        bias: [4H].
        h: [B, H], the output before the first step; zeros for fresh episodes.
        c: [B, H], the cell before the first step; zeros for fresh episodes.
        resets: bool [B, T]; True zeroes h and c *before* step t, whatever is in them. None: no resets. Of numbers, any
            but 0 is True.
        backend: "auto" | "naive" (step by step) | "triton" (float32, H at most 256). "auto" is "triton" on a GPU where
            that can run, else "naive"; an explicit one never falls back.

    Returns:
        h after each step [B, T, H], and h and c after the last one, [B, H]. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    _check(x, weight, bias, {"h": h, "c": c}, 4, backend)
    resets = checked_resets(resets, x)
    if _use_kernels(backend, x, h):
        from srwm_agents.ops.recurrent.autograd import lstm_triton

        return lstm_triton(x, weight, bias, h, c, resets)
    with without_autocast(x):
        return lstm_naive(x, weight, bias, h, c, resets)


def gru(
    x: Tensor, weight: Tensor, bias: Tensor, h: Tensor, *, resets: Tensor | None = None, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Run a GRU layer's recurrence over a batch of sequences, given what its input gives to the gates.

    With σ the logistic function, * elementwise, and x = (x_r, x_z, x_n) in PyTorch's order, likewise the rows of
    ``weight`` and ``bias``:

        r = σ(x_r + h W_r^T + b_r)        n = tanh(x_n + r * (h W_n^T + b_n))
        z = σ(x_z + h W_z^T + b_z)        h <- (1 - z) * n + z * h

    With x = functional.linear(input, weight_ih, bias_ih), ``weight_hh`` and ``bias_hh`` this is ``torch.gru_cell``,
    step by step. Source: Cho et al., EMNLP 2014, arXiv:1406.1078; deviation, PyTorch's: r is applied after the matrix
    product, and z is what is kept. Differentiable in every argument and through the final state. Works under
    ``torch.vmap`` and the transforms of ``torch.func``; second derivatives and forward mode with "naive" only.

    Args:
        x: [B, T, 3H], what the input gives to the gates' arguments.
        weight: [3H, H], from the state.
        bias: [3H].
        h: [B, H], the state before the first step; zeros for fresh episodes.
        resets: bool [B, T]; True zeroes h *before* step t, whatever is in it. None: no resets. Of numbers, any but 0 is
            True.
        backend: "auto" | "naive" (step by step) | "triton" (float32, H at most 256). "auto" is "triton" on a GPU where
            that can run, else "naive"; an explicit one never falls back.

    Returns:
        h after each step [B, T, H], and after the last one [B, H]. T = 0 returns the state unchanged.

    Raises:
        ValueError: a wrong shape, dtype or device, with what was expected; an unknown backend.
        BackendUnavailableError: the explicitly chosen backend cannot run these arguments here.
    """
    _check(x, weight, bias, {"h": h}, 3, backend)
    resets = checked_resets(resets, x)
    if _use_kernels(backend, x, h):
        from srwm_agents.ops.recurrent.autograd import gru_triton

        return gru_triton(x, weight, bias, h, resets)
    with without_autocast(x):
        return gru_naive(x, weight, bias, h, resets)


def _check(x: Tensor, weight: Tensor, bias: Tensor, state: dict[str, Tensor], gates: int, backend: str) -> None:
    check_backend(backend)
    if weight.dim() != 2 or weight.shape[0] != gates * weight.shape[1]:
        raise ValueError(f"weight has shape {list(weight.shape)}, expected [{gates}H, H]")
    rows, hidden = weight.shape
    if x.dim() != 3 or x.shape[2] != rows:
        raise ValueError(f"x has shape {list(x.shape)}, expected [B, T, {gates}H] with {gates}H = {rows}")
    check_shape("bias", bias, (rows,), f"[{gates}H]")
    for name, part in state.items():
        check_shape(name, part, (len(x), hidden), "[B, H]")
    for name, tensor in {"weight": weight, "bias": bias, **state}.items():
        check_alike(name, tensor, "x", x)


def _use_kernels(backend: str, x: Tensor, h: Tensor) -> bool:
    hidden = h.shape[1]
    why_not = f"it takes H up to {MAX_HIDDEN}, not {hidden}" if hidden > MAX_HIDDEN else None
    return use_kernels(backend, x, dtypes=(torch.float32,), why_not=why_not) and x.numel() > 0
