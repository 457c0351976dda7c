"""Process group of data-parallel training, as ``torchrun`` starts it."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from types import TracebackType
from typing import NoReturn

import torch
from torch import distributed as dist
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.parallel import DistributedDataParallel

from srwm_agents.launch import Launch

_LONGEST_WAIT = timedelta(minutes=30)
"""For another process. One that has died is noticed long before: see :mod:`srwm_agents.peers`."""


_LOST = "another process that torchrun started has ended, or cannot be reached"


class RankLostError(ConnectionError):
    """Another process of the group has ended, or cannot be reached."""


def use_own_gpu(launch: Launch) -> None:
    """Let this process see one GPU alone, as ``cuda:0``: the one of its local rank; to be called before CUDA is used.

    Nothing is changed without ``torchrun``, and where there is no GPU.

    Raises:
        ValueError: there are more processes on this machine than GPUs.
    """
    gpus = torch.cuda.device_count()  # does not initialise CUDA
    if launch.world_size == 1 or gpus == 0:
        return
    if launch.local_world_size > gpus:
        raise ValueError(
            f"torchrun started {launch.local_world_size} processes on this machine, where PyTorch sees {gpus} "
            f"GPU{'s' if gpus > 1 else ''}: start as many processes as there are GPUs, or give --device=cpu"
        )
    named = [gpu.strip() for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    os.environ["CUDA_VISIBLE_DEVICES"] = named[launch.local_rank] if named else str(launch.local_rank)


def end_process(status: int) -> NoReturn:
    """End this process at once, without destructors: those of NCCL wait for captured graphs and for lost processes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


class Processes:
    """The processes that train together; a context manager for their process group.

    Without ``torchrun`` there is one process, and every reduction is the identity. Tensors on a GPU go through NCCL,
    those on the CPU through gloo. All processes must make the same calls in the same order, each from one thread at a
    time.
    """

    def __init__(self, device: str) -> None:
        """Read rank and world size from the environment, and choose the device.

        Args:
            device: "auto" (CUDA where there is any), "cpu", "cuda" (the GPU of the process's local rank), "cuda:1", …

        Raises:
            ValueError: PyTorch cannot use the device.
        """
        launch = Launch.here()
        self.rank, self.world_size = launch.rank, launch.world_size
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name == "cuda":
            name = f"cuda:{launch.local_rank}"
        try:
            self.device = torch.device(name)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device is {device!r}, which PyTorch cannot use here; try cpu or cuda") from error

    @property
    def is_main(self) -> bool:
        """Whether this process, rank 0, is the one that validates, saves and prints."""
        return self.rank == 0

    def __enter__(self) -> Processes:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.world_size > 1:
            if error is None:
                self.wait()  # rank 0 may still validate or save
            # A DDP module in a reference cycle would keep the group's threads, which must end before the interpreter.
            gc.collect()
            dist.destroy_process_group()

    def connect(self) -> None:
        """Form the process group; where it is not left as a context manager, the process ends by :func:`end_process`.

        Raises:
            RankLostError: not all processes come.
        """
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            # gloo beside NCCL: what the host decides by needs no work on the device, and no waiting for it.
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            with _lost():
                dist.init_process_group(backend, timeout=_LONGEST_WAIT)

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Wrap a module in DDP, which averages its gradients over the processes."""
        if self.world_size == 1:
            return objective
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids)

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the main process first, then in the others, which find its results in the cache."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def wait(self) -> None:
        """Barrier: block until all processes have called it; what they launched on their devices may go on."""
        self.largest(0)

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes, with one all-reduce.

        For backward passes without a DDP module.
        """
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = self.mean(_flatten_dense_tensors(gradients))
        means = list(_unflatten_dense_tensors(flat, gradients))
        torch._foreach_copy_(gradients, means)  # type: ignore[attr-defined]

    def broadcast(self, model: nn.Module) -> None:
        """Broadcast rank 0's parameters and buffers to all processes."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                whole = tensor.contiguous()
                with _lost():
                    dist.broadcast(whole, 0)
                tensor.copy_(whole)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise mean over the processes; overwrites ``values``."""
        if self.world_size > 1:
            with _lost():
                dist.all_reduce(values)
            values /= self.world_size
        return values

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers; all must call it, and it returns when all have."""
        if self.world_size == 1:
            return number
        numbers = torch.tensor(number, device="cpu")  # the device goes on meanwhile
        with _lost():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def any(self, mine: bool) -> bool:
        """Whether ``mine`` is True in any process; all must call it."""
        return bool(self.largest(int(mine)))


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    """Tell the loss of a process from other errors, such as those of the device."""
    try:
        yield
    except dist.DistError as error:
        raise RankLostError(f"{_LOST} ({(str(error).strip().splitlines() or ['no reason given'])[0][:200]})") from error
    except RuntimeError as error:  # gloo has no type of its own
        if "gloo" in str(error) or "onnection" in str(error):
            raise RankLostError(_LOST) from error
        raise
