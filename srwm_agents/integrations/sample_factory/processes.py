"""Worker processes: they end with their parent, and leave a traceback if they end on their own."""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sample_factory.utils import utils as sf_utils

CRASH_FOLDER = "crashes"


class WorkerDiedError(RuntimeError):
    """A learner, inference or rollout process ended while training was going on."""


def quiet_console_log() -> None:
    """Take Sample Factory's log off the console; it still goes to sf_log.txt."""
    sf_utils.log.removeHandler(sf_utils.stream_handler)
    sf_utils.log.addHandler(logging.NullHandler())  # a logger without any handler prints its warnings after all


def crash_file(folder: Path, process_name: str) -> Path:
    """Where a worker leaves its traceback."""
    return folder / CRASH_FOLDER / f"{process_name}.txt"


def begin_worker(
    original: Callable[..., None], file: Path, parent: int, log_console: bool, *args: Any, **kwargs: Any
) -> None:
    """Runs first in each worker process, then hands over to Sample Factory's own initialisation."""
    if not log_console:
        quiet_console_log()
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, delay=True)
    handler.setLevel(logging.ERROR)
    sf_utils.log.addHandler(handler)
    # A failed check in the simulator's C++ aborts the process; this leaves a trace of where.
    faulthandler.enable(file.with_suffix(".fault.txt").open("w"))
    # The parent decides when to stop: it saves first. A signal to the whole group must not end the workers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_when_alone, args=(parent,), daemon=True).start()
    original(*args, **kwargs)


def _end_when_alone(parent: int) -> None:
    """End this process when its parent or its own main thread is gone.

    The parent may be gone by SIGKILL, and orphans would hold the GPU and the cores. The main thread may have ended in
    an exception, after which the learner's batcher thread would keep the process alive, and training waiting.
    """
    while os.getppid() == parent and threading.main_thread().is_alive():
        time.sleep(0.5)
    time.sleep(0.5)  # for an orderly exit to come first
    os._exit(1)


def wrap_process(process: Any, folder: Path, log_console: bool) -> None:
    """Make a not yet started ``EventLoopProcess`` begin with :func:`begin_worker`."""
    file = crash_file(folder, process._process.name)
    for old in (file, file.with_suffix(".fault.txt")):
        old.unlink(missing_ok=True)
    process._init_func = functools.partial(begin_worker, process._init_func, file, os.getpid(), log_console)


def death_report(process: Any, folder: Path) -> str | None:
    """Why a started process is dead, with its traceback if it left one; None while it lives."""
    exit_code = process._process.exitcode
    if exit_code is None:
        return None
    name = process._process.name
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit status {exit_code}"
    file = crash_file(folder, name)
    traces = [part.read_text().strip() for part in (file, file.with_suffix(".fault.txt")) if part.is_file()]
    trace = "\n".join(text for text in traces if text)
    return f"{trace}\nworker {name} {how}".strip()


def kill_all(processes: list[Any]) -> None:
    """End worker processes at once and wait until they are gone."""
    for process in processes:
        if process._process.pid is not None and process._process.exitcode is None:
            process._process.kill()
    for process in processes:
        if process._process.pid is not None:
            process._process.join(10)
