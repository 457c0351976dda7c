"""Asynchronous copies of a simulator's frames to a CUDA device, from its own page-locked memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Upload:
    """Copies one array, which a simulator overwrites again and again, to a device.

    The array's own memory is page-locked, so that copies are asynchronous and need no staging buffer. Call :meth:`wait`
    before overwriting the array.
    """

    def __init__(self, device: torch.device) -> None:
        """``device``: a CUDA device."""
        self._device = device
        self._copied = torch.cuda.Event()
        self._cuda: Any = torch.cuda.cudart()
        self._array: npt.NDArray[Any] = np.empty(0, np.uint8)
        self._locked = False

    def begin(self, array: npt.NDArray[Any]) -> None:
        """Page-lock ``array``; where that fails, copies go through PyTorch's pinned memory."""
        self._array = array
        with torch.cuda.device(self._device):
            self._locked = int(self._cuda.cudaHostRegister(array.ctypes.data, array.nbytes, 0)) == 0
            if not self._locked:
                _clear_last_error()

    def frames(self) -> Tensor:
        """Start a copy of the array to the device on the current stream, and return it."""
        tensor = torch.from_numpy(self._array)
        copy = (tensor if self._locked else tensor.pin_memory()).to(self._device, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self._device))
        return copy

    def wait(self) -> None:
        """Block until the last copy is done, after which the array may be overwritten."""
        self._copied.synchronize()

    def end(self) -> None:
        """Wait for the last copy and unlock the array, which may then be freed."""
        self.wait()
        if self._locked:
            self._cuda.cudaHostUnregister(self._array.ctypes.data)
            self._locked = False


_ALIGNMENT = 16
"""Bytes; a multiple of every element's size."""


def upload_together(arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """Copy small arrays to a CUDA device in one asynchronous transfer on the current stream.

    The arrays may be overwritten as soon as this returns. The tensors share one piece of device memory.
    """
    starts, size = {}, 0
    for name, array in arrays.items():
        starts[name] = size
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    # From PyTorch's own pinned memory, which it does not give to anybody else before the copy is done.
    staging = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    target = staging.numpy()
    for name, array in arrays.items():
        target[starts[name] : starts[name] + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    uploaded = staging.to(device, non_blocking=True)
    return {
        name: uploaded[starts[name] : starts[name] + array.nbytes].view(_torch_type(array.dtype)).view(array.shape)
        for name, array in arrays.items()
    }


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _clear_last_error() -> None:
    """Have the CUDA runtime forget the error of a failed call, which this thread's next kernel launch would raise.

    PyTorch does not expose ``cudaGetLastError``, but calls it after each of its launches: here after one of no use.
    """
    with contextlib.suppress(RuntimeError):
        torch.ones(1, device="cuda")
