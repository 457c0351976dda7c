"""What the ops with kernels share on the host: which precision goes with which, and whether a kernel can run.

Imports Triton only once kernels are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

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


def use_kernels(
    backend: str,
    tensor: Tensor,
    *,
    widths: Mapping[str, int] | None = None,
    dtypes: Sequence[torch.dtype] = DTYPES,
    why_not: str | None = None,
) -> bool:
    """Whether ``backend`` ("auto" | "naive" | "triton" | "cpu") means Triton's kernels for ``tensor``.

    "auto" takes them on a CUDA device if they can run; "triton" raises ``BackendUnavailableError`` if they cannot, with
    the reason: ``why_not``, the op's own, or that ``tensor`` has none of ``dtypes``, a width above ``MAX_WIDTH`` or the
    wrong device, or that there is no Triton.
    """
    if backend in ("naive", "cpu") or (backend == "auto" and not tensor.is_cuda):
        return False
    reason = why_not or _why_not(tensor, widths or {}, dtypes)
    if reason is not None and backend == "triton":
        raise BackendUnavailableError(f"backend 'triton' cannot run here: {reason}")
    return reason is None


def _why_not(tensor: Tensor, widths: Mapping[str, int], dtypes: Sequence[torch.dtype]) -> str | None:
    try:
        from srwm_agents.ops.kernel_helpers import INTERPRETED
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if tensor.dtype not in dtypes:
        return f"it takes {' or '.join(map(str, dtypes))}, not {tensor.dtype}"
    for name, width in widths.items():
        if not 1 <= width <= MAX_WIDTH:
            return f"it takes {name} from 1 to {MAX_WIDTH}, not {width}"
    if tensor.device.type != "cuda" and not INTERPRETED:
        return f"it needs CUDA tensors (or Triton's interpreter, TRITON_INTERPRET=1), not {tensor.device.type}"
    return None


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Make the tensor's device current: Triton launches on the current one. Free when it is already."""
    if tensor.device.type != "cuda" or tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Turn autocast off, which would make products narrower than the states are. Free where it is off already."""
    kind = tensor.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def padded(width: int) -> int:
    """The power of two at or above ``width``, at least 4."""
    return max(4, 1 << (width - 1).bit_length())


def contiguous(*tensors: Tensor | None) -> list[Any]:
    """The tensors as kernels read them."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def differentiable(*tensors: Tensor | None) -> bool:
    """Whether autograd will want a gradient in one of the tensors."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
