"""Checks of an op's arguments: each error names the wrong argument, what it is, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

BACKENDS = ("auto", "naive", "triton")
"""What every op's ``backend`` may be."""
MEMORY_BACKENDS = (*BACKENDS, "cpu")
"""And that of the memories, which have compiled kernels for a CPU."""


class BackendUnavailableError(RuntimeError):
    """An explicitly chosen backend cannot run here; ops never replace it by another one."""


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


def checked_resets(resets: Tensor | None, x: Tensor) -> Tensor | None:
    """``resets`` [B, T] as bool, where any number but 0 is True; None stays None. ``x`` is the input, [B, T, …].

    Raises:
        ValueError: another shape or device.
    """
    if resets is None:
        return None
    check_shape("resets", resets, x.shape[:2], "[B, T]")
    if resets.device != x.device:
        raise ValueError(f"resets is on {resets.device}, but x is on {x.device}")
    return as_bool(resets)


def as_bool(flags: Tensor) -> Tensor:
    """``flags`` as bool: any number but 0 is True."""
    return flags if flags.dtype == torch.bool else flags != 0


def check_backend(backend: str, allowed: Sequence[str] = BACKENDS) -> None:
    """Raise ``ValueError`` for a backend's name that the op does not have."""
    if backend not in allowed:
        raise ValueError(f"backend is {backend!r}, allowed: {', '.join(allowed)}")
