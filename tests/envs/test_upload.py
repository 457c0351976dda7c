"""Copies of frames to a CUDA device, where memory can be page-locked and where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from srwm_agents.envs.upload import PackedUpload, Upload


class FakeRuntime(TorchFunctionMode):
    """A CUDA runtime without a device: an error that a call returns is raised by the next launch, once."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.refuses = refuses
        self.last_error = False
        self.registered: list[int] = []
        self.raised = 0

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802
        if self.refuses:
            self.last_error = True
            return 801
        self.registered.append(address)
        return 0

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        self.registered.remove(address)
        return 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            return args[0]
        on_device = [z for z in (*args, kwargs.pop("device", None)) if "cuda" in str(z)]
        if not on_device:
            return func(*args, **kwargs)
        if self.last_error:
            self.last_error = False
            self.raised += 1
            raise RuntimeError("CUDA error: operation not supported")
        return args[0].clone() if func is torch.Tensor.to else func(*args, **kwargs)


class FakeEvent:
    def record(self, stream: object) -> None: ...

    def synchronize(self) -> None: ...


@pytest.mark.parametrize("refuses", [True, False])
def test_a_system_that_locks_no_pages_breaks_no_later_launch(monkeypatch: pytest.MonkeyPatch, refuses: bool) -> None:
    runtime = FakeRuntime(refuses)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "device", lambda _device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: None)
    upload = Upload(torch.device("cuda"))
    array = np.arange(12, dtype=np.uint8)
    with runtime:
        upload.begin(array)
        assert not runtime.last_error
        assert bool(runtime.registered) != refuses
        frames = upload.frames()
        array[:] = 0
        upload.end()
    assert frames.tolist() == list(range(12))
    assert not runtime.registered
    assert runtime.raised == int(refuses), "the error is raised where it is caught, and nowhere else"


@pytest.mark.gpu
def test_an_array_that_is_locked_already_is_copied_all_the_same() -> None:
    """CUDA refuses to lock memory twice; the next launch must not report that."""
    array = np.arange(4096, dtype=np.uint8)
    device = torch.device("cuda", torch.cuda.current_device())
    uploads = [Upload(device), Upload(device)]
    for upload in uploads:
        upload.begin(array)
    assert [upload._locked for upload in uploads] == [True, False]
    assert (torch.ones(3, device=device) + 1).tolist() == [2, 2, 2]
    for upload in reversed(uploads):
        frames = upload.frames()
        upload.end()
        assert frames.cpu().numpy().tolist() == array.tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("reuse", [False, True])
def test_arrays_of_all_types_arrive_together_and_may_be_overwritten_at_once(reuse: bool) -> None:
    upload = PackedUpload(torch.device("cuda"), reuse=reuse)
    before: dict[str, torch.Tensor] = {}
    for step in range(3):
        arrays = {
            "rewards": np.arange(5, dtype=np.float32) + step,
            "ended": np.array([True, False, step == 1]),
            "one_hot": np.eye(4, 3, dtype=np.float32).T * step,  # not contiguous
            "counts": np.arange(7, dtype=np.int64) - step,
        }
        expected = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        uploaded = upload(arrays)
        for array in arrays.values():
            array[...] = 0
        for name, tensor in uploaded.items():
            assert tensor.device.type == "cuda"
            torch.testing.assert_close(tensor.cpu(), expected[name])
            if before:
                assert (tensor.data_ptr() == before[name].data_ptr()) == reuse
        before = uploaded
