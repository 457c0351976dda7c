"""Worker processes: they end with their parent, and tell it why if they end on their own."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from sample_factory.utils import utils as sf_utils

from srwm_agents.command_line import reason
from srwm_agents.envs import SimulatorError
from srwm_agents.envs.gymnasium_task import TaskError
from srwm_agents.experiment_folders import ExperimentError
from srwm_agents.integrations.sample_factory.checkpoint import CheckpointError, NotFiniteError

CRASH_FOLDER = "crashes"

TOLD_IN_ONE_LINE = (OSError, ExperimentError, CheckpointError, NotFiniteError, SimulatorError, TaskError)
"""Exceptions whose message says everything: their traceback is of no use to whoever trains."""

_READ_THE_CLOCK = (
    *("signal_slot.signal_slot", "signal_slot.queue_utils", "sample_factory.algo.runners.runner"),
    *("sample_factory.algo.learning.learner", "sample_factory.algo.sampling.inference_worker"),
    *("sample_factory.utils.timing", "sample_factory.pbt.population_based_training"),
)
LOOK_EVERY_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 1.0
"""What a pause between two looks counts at most: while the whole run is suspended, no worker is late."""
STANDS_STILL_SECONDS = 30.0
_LONGEST_REPORT = 30_000
"""Characters; a pipe holds twice as many without a reader."""


class WorkerDiedError(RuntimeError):
    """A learner, inference or rollout process ended, or stands still, while training was going on."""


def quiet_console_log() -> None:
    """Take Sample Factory's log off the console; it still goes to sf_log.txt."""
    sf_utils.log.removeHandler(sf_utils.stream_handler)
    sf_utils.log.addHandler(logging.NullHandler())  # a logger without any handler prints its warnings after all


def tolerate_full_disk() -> None:
    """Let a line of sf_log.txt that cannot be written be lost: Python would print a traceback for each of them."""
    for handler in sf_utils.log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = lambda record: None


def use_monotonic_clock() -> None:
    """Give Sample Factory a clock that nobody can set.

    With the time of day, its timers, which also save, stand still for an hour when the clock is set back by an hour,
    and its workers count as dead when it is set forward.
    """
    for name in _READ_THE_CLOCK:
        vars(import_module(name))["time"] = SimpleNamespace(time=time.monotonic, sleep=time.sleep)


class _Report(logging.Handler):
    """Sends the first exception that is logged to the parent process."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(logging.ERROR)
        self._pipe: Connection | None = pipe

    def emit(self, record: logging.LogRecord) -> None:
        if self._pipe is None or not record.exc_info or record.exc_info[1] is None:
            return
        error = record.exc_info[1]
        text = reason(error) if isinstance(error, TOLD_IN_ONE_LINE) else logging.Formatter().format(record)
        with contextlib.suppress(OSError):
            self._pipe.send(text[-_LONGEST_REPORT:])
        self._pipe = None


def begin_worker(
    original: Callable[..., None],
    loop: Any,
    fault_file: Path,
    pipe: Connection,
    parent: int,
    log_console: bool,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Runs first in each worker process, then hands over to Sample Factory's own initialisation."""
    use_monotonic_clock()
    if not log_console:
        quiet_console_log()
    sf_utils.log.addHandler(_Report(pipe))
    # A failed check in the simulator's C++ aborts the process; this leaves a trace of where.
    with contextlib.suppress(OSError):
        fault_file.parent.mkdir(exist_ok=True)
        faulthandler.enable(fault_file.open("w"))
    # The parent decides when to stop: it saves first. A signal to the whole group must not end the workers.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_when_alone, args=(parent,), daemon=True).start()
    loop.exec = functools.partial(_run_loop, loop.exec)
    original(*args, **kwargs)
    tolerate_full_disk()


def _run_loop(run: Callable[[], Any]) -> Any:
    """Run a worker's event loop; what is told in one line ends the process without a traceback on the console."""
    try:
        return run()
    except TOLD_IN_ONE_LINE:
        sys.exit(1)


def _end_when_alone(parent: int) -> None:
    """End this process when its parent or its own main thread is gone.

    The parent may be gone by SIGKILL, and orphans would hold the GPU and the cores. The main thread may have ended in
    an exception, after which the learner's batcher thread would keep the process alive, and training waiting.
    """
    while os.getppid() == parent and threading.main_thread().is_alive():
        time.sleep(0.5)
    time.sleep(0.5)  # for an orderly exit to come first
    os._exit(1)


class WatchedProcess:
    """A worker process, as the run's main process watches it."""

    def __init__(self, process: Any, folder: Path, log_console: bool) -> None:
        """Make a not yet started ``EventLoopProcess`` begin with :func:`begin_worker`."""
        self._process = process._process
        self._fault_file = folder / CRASH_FOLDER / f"{self.name}.fault.txt"
        self._fault_file.unlink(missing_ok=True)
        self._pipe, self._theirs = multiprocessing.Pipe(duplex=False)
        self.seconds_stopped = 0.0
        """How long it has been stopped by a signal."""
        begin = (process._init_func, process.event_loop, self._fault_file, self._theirs, os.getpid(), log_console)
        process._init_func = functools.partial(begin_worker, *begin)

    @property
    def name(self) -> str:
        """As Sample Factory names it."""
        return self._process.name

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process.pid is not None and self._process.exitcode is None

    def look(self, seconds: float) -> None:
        """Take note of whether the process is stopped; ``seconds``: since the last look."""
        stopped = False
        with contextlib.suppress(psutil.Error):
            stopped = bool(self._process.pid) and psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        self.seconds_stopped = self.seconds_stopped + seconds if stopped else 0.0

    def death(self, *, expected: bool = False) -> str | None:
        """Why it is dead, in its own words if it left any; None while it lives.

        Args:
            expected: whether it may have ended in order by now.
        """
        exit_code = self._process.exitcode
        if exit_code is None or (expected and exit_code == 0):
            return None
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit status {exit_code}"
        told = self._told()
        if told and "\n" not in told:
            return f"{told} (worker {self.name})"
        fault = self._fault_file.read_text().strip() if self._fault_file.is_file() else ""
        return "\n".join(filter(None, (told, fault, f"worker {self.name} {how}")))

    def _told(self) -> str:
        try:
            return self._pipe.recv().strip() if self._pipe.poll() else ""
        except (EOFError, OSError):
            return ""

    def kill(self) -> None:
        """End it at once; :meth:`join` waits until it is gone."""
        if self.alive:
            self._process.kill()

    def join(self) -> None:
        """Wait until it is gone, and free what it left behind."""
        if self._process.pid is not None:
            self._process.join(10)
        self._pipe.close()
        self._theirs.close()


class StandstillGuard(threading.Thread):
    """Kills all workers when one of them has been stopped for :data:`STANDS_STILL_SECONDS`.

    A thread of its own, because the main thread may be waiting for that very worker: when it starts it, or at the end.
    """

    def __init__(self, watched: Sequence[WatchedProcess]) -> None:
        super().__init__(name="standstill guard", daemon=True)
        self._watched = watched
        self._end = threading.Event()
        self.report: str | None = None
        """Which worker stood still, if one did."""

    def run(self) -> None:
        before = time.monotonic()
        while not self._end.wait(LOOK_EVERY_SECONDS):
            now = time.monotonic()
            for process in self._watched:
                process.look(min(now - before, LONGEST_LOOK_SECONDS))
            before = now
            if still := [process.name for process in self._watched if process.seconds_stopped > STANDS_STILL_SECONDS]:
                self.report = (
                    f"worker {', '.join(still)} has been standing still for {STANDS_STILL_SECONDS:.0f} s, stopped by a "
                    "signal from outside"
                )
                for process in self._watched:
                    process.kill()
                return

    def end(self) -> None:
        """End the thread."""
        self._end.set()
        self.join()
