"""Places on a machine, a share of a GPU and of the cores each, and runs that are started there one after another."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

ROOT = Path(__file__).parents[1]
TOO_LATE_SECONDS = 30
"""What would begin with less time left has hardly started when it must stop."""

Job = TypeVar("Job")


@dataclass(frozen=True)
class Place:
    """Where a run is started."""

    gpu: str | None
    """As ``CUDA_VISIBLE_DEVICES`` names it; None: no GPU."""
    cores: frozenset[int]
    """The CPU cores that it may use."""


def places(gpus: Sequence[str], per_gpu: int) -> list[Place]:
    """``per_gpu`` places on each GPU, or without GPUs so many on the CPU, with equal shares of the cores."""
    number = max(1, len(gpus)) * per_gpu
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // number)
    shares = [[cores[(i * share + j) % len(cores)] for j in range(share)] for i in range(number)]
    return [Place(gpus[i % len(gpus)] if gpus else None, frozenset(own)) for i, own in enumerate(shares)]


def run(command: Sequence[Any], place: Place, log: TextIO, until: float) -> int:
    """Run a command at a place, its output to ``log``; at ``until`` (of ``time.monotonic``) it is asked to stop.

    Returns:
        its exit status.
    """
    # The cores are set before the command counts them.
    pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(place.cores)))]
    environment = {**os.environ, **({} if place.gpu is None else {"CUDA_VISIBLE_DEVICES": place.gpu})}
    process = subprocess.Popen([*pinned, *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        return process.wait(timeout=max(1.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # saves and stops
        return process.wait()


def work_through(jobs: Iterable[Job], at: Sequence[Place], start: Callable[[Job, Place], None], until: float) -> None:
    """Call ``start`` for each job, in order, at the next place that is free; none after ``until``."""
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def work(place: Place) -> None:
        while time.monotonic() < until - TOO_LATE_SECONDS:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            start(job, place)

    threads = [threading.Thread(target=work, args=(place,)) for place in at]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
