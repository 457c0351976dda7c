"""What the ops with kernels have in common: which precision goes with which, and whether a kernel can run.

Imports no Triton: asking costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from srwm_agents.ops.checks import BackendUnavailableError

MAX_WIDTH = 128
"""The widest head (D or O) that the kernels take: matrices and their gradients live in registers."""

DTYPES = (torch.float32, torch.bfloat16)
"""Dtypes of a kernel's inputs; states and everything inside are float32."""


def state_dtype(inputs: Tensor) -> torch.dtype:
    """The dtype that states have and that everything is computed in: float32 for bfloat16 inputs, else the inputs'."""
    return torch.float32 if inputs.dtype == torch.bfloat16 else inputs.dtype


def check_precision(name: str, tensor: Tensor, reference_name: str, reference: Tensor, *, narrow: bool = False) -> None:
    """As ``check_alike``, but beside bfloat16 inputs stands float32 or, if ``narrow``, either of the two."""
    if narrow and reference.dtype == torch.bfloat16 and tensor.dtype == torch.bfloat16:
        expected = torch.bfloat16
    else:
        expected = state_dtype(reference)
    if tensor.dtype != expected:
        raise ValueError(f"{name} is {tensor.dtype}, expected {expected} beside {reference_name} of {reference.dtype}")
    if tensor.device != reference.device:
        raise ValueError(f"{name} is on {tensor.device}, but {reference_name} is on {reference.device}")


def unsupported_reason(tensor: Tensor, widths: dict[str, int], interpreted: bool) -> str | None:
    """Why no kernel can run on ``tensor`` with these widths, in one line; None if one can."""
    if tensor.dtype not in DTYPES:
        return f"it takes {' or '.join(map(str, DTYPES))}, not {tensor.dtype}"
    for name, width in widths.items():
        if not 1 <= width <= MAX_WIDTH:
            return f"it takes {name} from 1 to {MAX_WIDTH}, not {width}"
    if tensor.device.type != "cuda" and not interpreted:
        return f"it needs CUDA tensors (or Triton's interpreter, TRITON_INTERPRET=1), not {tensor.device.type}"
    return None


def use_kernels(backend: str, tensor: Tensor, why_not: Callable[[], str | None]) -> bool:
    """Whether ``backend`` ("auto" | "naive" | "triton") means the kernels for ``tensor``.

    "auto" takes them on a CUDA device if they can run; "triton" raises ``BackendUnavailableError`` if they cannot, with
    the reason that ``why_not`` gives.
    """
    if backend == "naive" or (backend == "auto" and not tensor.is_cuda):
        return False
    reason = why_not()
    if reason is not None and backend == "triton":
        raise BackendUnavailableError(f"backend 'triton' cannot run here: {reason}")
    return reason is None


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device current: Triton launches on the current one. Free when it is already."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def padded(width: int) -> int:
    """The power of two at or above ``width``, at least 4."""
    return max(4, 1 << (width - 1).bit_length())
