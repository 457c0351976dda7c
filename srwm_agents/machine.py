"""What the machine has, and how many of its cores PyTorch computes with."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""The environment variable by which a user, a cluster's scheduler or ``torchrun`` chooses the number of threads."""


def available_cores() -> int:
    """CPU cores that this process may use, which can be fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_for(
    asked: int | None, *, images: bool, cores: int, environment: Mapping[str, str], processes: int = 1
) -> int:
    """Number of PyTorch's CPU threads for one process of a command.

    Threads of one operation wait for each other. Where operations are small, or another program has one of the cores,
    the waiting takes far longer than the work.

    Args:
        asked: what ``--threads`` says; None if it was not given.
        images: whether there are convolutions, which are large enough to be divided. They get half of the cores, so
            that other programs, and the second threads of cores that have two, are no obstacle; all else gets 1.
        cores: that this process may use.
        environment: its environment variables; a whole number in ``OMP_NUM_THREADS`` counts where nothing is asked.
        processes: that compute at the same time, and share the cores.

    Returns:
        The number, at least 1.
    """
    if asked is not None:
        return asked
    # Of a list, which is for nested threads, the first one is that of the outermost.
    fixed = environment.get(THREADS_VARIABLE, "").split(",")[0].strip()
    if fixed.isdecimal() and int(fixed) > 0:
        return int(fixed)
    return max(1, cores // (2 * processes)) if images else 1


def use_threads(asked: int | None, *, images: bool, device: str = "cpu", processes: int = 1) -> int:
    """Have this process compute with as many threads as :func:`threads_for` says; returns their number.

    Args:
        asked: as of :func:`threads_for`, like ``images`` and ``processes``.
        images: see there.
        device: PyTorch's name of a device, "gpu", or "auto", which is a GPU where there is one. Beside a GPU the CPU
            computes next to nothing: PyTorch's own number stays unless another one is asked for.
        processes: see there.
    """
    import torch

    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith(("cuda", "gpu"))
    if on_gpu and asked is None:
        return torch.get_num_threads()
    threads = threads_for(asked, images=images, cores=available_cores(), environment=os.environ, processes=processes)
    torch.set_num_threads(threads)
    return threads


THREADS_HELP = (
    f"PyTorch's threads on a CPU; default: {THREADS_VARIABLE} if that is set, else half of the cores where there are "
    "images, and 1 where there are none"
)


def add_threads_flag(parser: argparse._ActionsContainer) -> None:
    """Add ``--threads`` to a command that computes with PyTorch; its default is None."""
    parser.add_argument("--threads", type=thread_count, help=THREADS_HELP)


def thread_count(text: str) -> int:
    """A number of threads, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads, expected at least 1")
    return int(text)
