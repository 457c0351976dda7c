"""Asynchronous copies of a simulator's frames to a CUDA device, from its own page-locked memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
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

    def __init__(self, device: torch.device, *, reuse: bool = False) -> None:
        """``device``: a CUDA device; ``reuse``: every copy goes to the same tensor, and overwrites the one before."""
        self._device = device
        self._reuse = reuse
        self._target: Tensor | None = None
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
        pinned = tensor if self._locked else tensor.pin_memory()
        if self._reuse:
            if self._target is None:
                self._target = torch.empty_like(tensor, device=self._device)
            copy = self._target.copy_(pinned, non_blocking=True)
        else:
            copy = pinned.to(self._device, non_blocking=True)
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


class PackedUpload:
    """Copies small arrays to a CUDA device in one asynchronous transfer on the current stream."""

    def __init__(self, device: torch.device, *, reuse: bool = False) -> None:
        """``reuse``: arrays of the same names go to the same tensors, and overwrite what these held."""
        self._device = device
        self._reuse = reuse
        self._packs: dict[tuple[str, ...], _Pack] = {}

    def __call__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Tensor]:
        """Start the transfer and return the tensors on the device, which share one piece of memory.

        The arrays may be overwritten as soon as this returns. With ``reuse`` the transfer before, of arrays of the same
        names, must be done when this is called; shapes and types must be the same.
        """
        names = tuple(arrays)
        pack = self._packs.get(names)
        if pack is None:
            pack = _Pack.of(arrays, self._device)
            if self._reuse:
                self._packs[names] = pack
        for name, array in arrays.items():
            pack.staged[name][...] = array
        pack.uploaded.copy_(pack.staging, non_blocking=True)
        return dict(pack.tensors)


@dataclass(frozen=True)
class _Pack:
    """Pinned memory and device memory with room for some arrays."""

    staging: Tensor
    staged: dict[str, npt.NDArray[Any]]
    uploaded: Tensor
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], device: torch.device) -> _Pack:
        spans, size = {}, 0
        for name, array in arrays.items():
            spans[name] = slice(size, size + array.nbytes)
            size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        # PyTorch's own pinned memory: it is not given to anybody else before copies from it are done.
        staging = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        uploaded = torch.empty(size, dtype=torch.uint8, device=device)
        staged = {n: staging.numpy()[spans[n]].view(array.dtype).reshape(array.shape) for n, array in arrays.items()}
        tensors = {
            name: uploaded[spans[name]].view(_torch_type(array.dtype)).view(array.shape)
            for name, array in arrays.items()
        }
        return cls(staging, staged, uploaded, tensors)


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _clear_last_error() -> None:
    """Have the CUDA runtime forget the error of a failed call, which this thread's next kernel launch would raise.

    PyTorch does not expose ``cudaGetLastError``, but calls it after each of its launches: here after one of no use.
    """
    with contextlib.suppress(RuntimeError):
        torch.ones(1, device="cuda")
