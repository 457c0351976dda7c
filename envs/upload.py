"""Asynchronous copies of a simulator's frames to a CUDA device, from its own page-locked memory."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Upload:
    """Copies one array, which a simulator overwrites again and again, to a device.

    The array's own memory is page-locked for as long as it is used, so that the device fetches it by itself: no copy
    on the host, and no wait. Who writes the array must call :meth:`wait` before.
    """

    def __init__(self, device: torch.device) -> None:
        """``device`` is a CUDA device."""
        self._device = device
        self._copied = torch.cuda.Event()
        self._cuda: Any = torch.cuda.cudart()
        self._array: npt.NDArray[Any] = np.empty(0, np.uint8)
        self._locked = False

    def begin(self, array: npt.NDArray[Any]) -> None:
        """Use ``array``; where the system allows no page-locking, copies go through memory that PyTorch has locked."""
        self._array = array
        with torch.cuda.device(self._device):
            self._locked = int(self._cuda.cudaHostRegister(array.ctypes.data, array.nbytes, 0)) == 0
            if not self._locked:
                _clear_last_error()

    def frames(self) -> Tensor:
        """A copy of the array on the device, under way on the current stream."""
        tensor = torch.from_numpy(self._array)
        copy = (tensor if self._locked else tensor.pin_memory()).to(self._device, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self._device))
        return copy

    def wait(self) -> None:
        """Until the last copy is done; from then on the array may be overwritten."""
        self._copied.synchronize()

    def end(self) -> None:
        """Unlock the array, which may then be freed."""
        self.wait()
        if self._locked:
            self._cuda.cudaHostUnregister(self._array.ctypes.data)
            self._locked = False


def _clear_last_error() -> None:
    """Have the CUDA runtime forget the error of a failed call, which this thread's next kernel launch would raise.

    PyTorch does not expose ``cudaGetLastError``, but calls it after each of its launches: here after one of no use.
    """
    with contextlib.suppress(RuntimeError):
        torch.ones(1, device="cuda")
