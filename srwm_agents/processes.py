"""One process or several: what ``torchrun`` says, and the little that processes tell each other."""

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
    """The processes that train together; a context manager that joins them and parts from them.

    Without ``torchrun`` there is one, and nothing here does anything.
    """

    def __init__(self, device: str) -> None:
        """``device`` as in the settings; "cuda" is the GPU of the process's local rank."""
        self.rank = int(os.environ.get("RANK", "0"))
        self.number = int(os.environ.get("WORLD_SIZE", "1"))
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if name == "cuda":
            name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        try:
            self.device = torch.device(name)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"--device is {device!r}, which PyTorch cannot use here; try cpu or cuda") from error

    @property
    def first(self) -> bool:
        """Whether this process is the one that validates, saves and speaks."""
        return self.rank == 0

    def __enter__(self) -> Processes:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.number > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.number > 1:
            if error is None:
                self.wait()  # nobody hangs up while another still validates or saves
            # A DDP that still hangs in a cycle would keep the group's threads, which must not outlive the interpreter.
            gc.collect()
            dist.destroy_process_group()

    def wrap(self, objective: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes."""
        if self.number == 1:
            return objective
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids)

    @contextlib.contextmanager
    def first_ahead(self) -> Iterator[None]:
        """The first process goes through the block before the others: what it decodes, they find in the cache."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.number > 1:
            dist.barrier()

    def average_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by its mean over the processes, all of them in one message; what DDP does, for a
        backward pass that is not DDP's own.
        """
        if self.number == 1:
            return
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = self.mean(_flatten_dense_tensors(gradients))
        for gradient, mean in zip(gradients, _unflatten_dense_tensors(flat, gradients), strict=True):
            gradient.copy_(mean)

    def share(self, model: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.number > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Of the processes' values."""
        if self.number > 1:
            dist.all_reduce(values)
            values /= self.number
        return values

    def any(self, mine: bool) -> bool:
        """Whether any process says so: all stop at the same update, or none."""
        if self.number == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.device)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)
