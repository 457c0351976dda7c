"""Program that ends a local Ray cluster whose driver was killed: some of Ray's processes would outlive it for minutes.

It imports nothing of Ray, so that it is small.
"""

from __future__ import annotations

import contextlib
import select
import sys

import psutil

LOOK_EVERY_SECONDS = 2.0
DONE = b"done"
"""What the driver writes before it closes the pipe, if it ends in order."""


def guard(driver: int) -> None:
    """Wait for the end of stdin; unless it says that all is done, kill what of Ray the driver had started."""
    started: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], LOOK_EVERY_SECONDS)[0]:
        started |= _of_ray(driver)
    started |= _of_ray(driver)
    if sys.stdin.buffer.read() != DONE:
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # never another one of the same number: psutil compares the time of its start


def _of_ray(driver: int) -> set[psutil.Process]:
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "ray" in " ".join(process.cmdline()):
                    found.add(process)
    return found


if __name__ == "__main__":
    guard(int(sys.argv[1]))
