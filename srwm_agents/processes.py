"""Process group of data-parallel training, as ``torchrun`` starts it."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from types import TracebackType

import torch
from torch import distributed as dist
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.parallel import DistributedDataParallel


class Processes:
    """The processes that train together; a context manager for their process group.

    Without ``torchrun`` there is one process, and every reduction is the identity.
    """

    def __init__(self, device: str) -> None:
        """Read rank and world size from the environment, and choose the device.

        Args:
            device: "auto" (CUDA where there is any), "cpu", "cuda" (the GPU of the process's local rank), "cuda:1", …

        Raises:
            ValueError: PyTorch cannot use the device.
        """
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name == "cuda":
            name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
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
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world_size > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
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
        """Barrier: block until all processes have called it."""
        if self.world_size > 1:
            dist.barrier()

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes, with one all-reduce.

        For backward passes without a DDP module.
        """
        if self.world_size == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = self.mean(_flatten_dense_tensors(gradients))
        for gradient, mean in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
            gradient.copy_(mean)

    def broadcast(self, model: nn.Module) -> None:
        """Broadcast rank 0's parameters and buffers to all processes."""
        if self.world_size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise mean over the processes; overwrites ``values``."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values /= self.world_size
        return values

    def any(self, mine: bool) -> bool:
        """Whether ``mine`` is True in any process; all must call it."""
        if self.world_size == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)
