"""Checks at the door of an op: each names the wrong argument, what it is, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class BackendUnavailableError(RuntimeError):
    """An explicitly chosen backend cannot run here; ops never fall back to another one in silence."""


def check_shape(name: str, tensor: Tensor, shape: Sequence[int], dims: str) -> None:
    """Raise ``ValueError`` unless ``tensor`` has ``shape``; ``dims`` spells it in letters, e.g. "[B, T, H, D]"."""
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {dims} = {list(shape)}")


def check_alike(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    """Raise ``ValueError`` unless both tensors share their dtype and device."""
    if tensor.dtype != reference.dtype:
        raise ValueError(f"{name} is {tensor.dtype}, but {reference_name} is {reference.dtype}: they must agree")
    if tensor.device != reference.device:
        raise ValueError(f"{name} is on {tensor.device}, but {reference_name} is on {reference.device}")


def check_contiguous(name: str, tensor: Tensor) -> None:
    """Raise ``ValueError`` unless ``tensor``, which is to be updated in place, is contiguous."""
    if not tensor.is_contiguous():
        raise ValueError(f"{name} is updated in place, so it must be contiguous; its strides are {tensor.stride()}")


def check_resets(resets: Tensor | None, batch: int, steps: int, device: torch.device) -> None:
    """Raise ``ValueError`` unless ``resets`` is None or a bool tensor [B, T] on ``device``."""
    if resets is None:
        return
    check_shape("resets", resets, (batch, steps), "[B, T]")
    if resets.dtype != torch.bool:
        raise ValueError(f"resets is {resets.dtype}, expected torch.bool")
    if resets.device != device:
        raise ValueError(f"resets is on {resets.device}, but x is on {device}")


def check_backend(backend: str, allowed: Sequence[str]) -> None:
    """Raise ``ValueError`` for a backend's name that no op has."""
    if backend not in allowed:
        raise ValueError(f"backend is {backend!r}, allowed: {', '.join(allowed)}")
