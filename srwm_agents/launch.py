"""What ``torchrun`` tells each process that it starts, in environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

_REQUIRED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a process group is formed with; a scheduler that sets only some of them started no group."""


def started_together(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun started this process as one of several."""
    return all(name in environment for name in _REQUIRED) and environment["WORLD_SIZE"] != "1"


class LaunchError(ValueError):
    """What the environment says of the process's place cannot be; the message names the variable and its value."""


@dataclass(frozen=True)
class Launch:
    """A process's place among those that were started together; without ``torchrun`` it is the only one."""

    rank: int = 0
    """Number of the process, from 0."""
    world_size: int = 1
    """How many processes there are on all machines."""
    local_rank: int = 0
    """Number of the process on its machine, from 0."""
    local_world_size: int = 1
    """How many there are on this machine."""
    attempt: int = 0
    """How often torchrun has started the processes anew (``--max_restarts``)."""

    @classmethod
    def here(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """The place of this process, from the variables that torchrun sets.

        Raises:
            LaunchError: one of them is no whole number, or the rank is not below the number of processes.
        """
        if not started_together(environment):
            return cls()
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
        defaults = ("0", "1", "0", "1", "0")
        values = {name: environment.get(name, default) for name, default in zip(names, defaults, strict=True)}
        for name, value in values.items():
            if not value.isdecimal():
                raise LaunchError(f"the environment variable {name} is {value!r}, expected a whole number")
        launch = cls(*map(int, values.values()))
        if launch.rank >= launch.world_size:
            raise LaunchError(f"the environment variable RANK is {launch.rank}, expected below {launch.world_size}")
        return launch

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that saves and prints."""
        return self.rank == 0
