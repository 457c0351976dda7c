"""Processes that each step a part of many environments, and leave the results in shared memory."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing import util
from typing import Any

import numpy as np
import numpy.typing as npt

from srwm_agents.envs.gymnasium_task import EnvironmentFailedError, GymnasiumTask
from srwm_agents.envs.stepping import Environments, Layout, Results
from srwm_agents.spaces.gymnasium_spaces import leaves_of

_STEP, _RESET, _QUIT = b"s", b"r", b"q"
_DONE, _FAILED = b"d", b"f"
_END_WITHIN_SECONDS = 5.0


class WorkerProcesses:
    """Environments of one task, spread over processes; one byte to each process, and one back, is a step.

    Processes are spawned, which CUDA and threads in this one allow. They end with this process, however it ends: their
    pipes close. Signals to stop are left to this process.
    """

    def __init__(self, task: GymnasiumTask, layout: Layout, number: int, processes: int) -> None:
        """``number``: of environments, at least as many as ``processes``."""
        context = multiprocessing.get_context("spawn")
        self._task = task
        memory = context.RawArray(ctypes.c_byte, layout.size)
        self.results = layout.place(memory)
        bounds = np.linspace(0, number, processes + 1).astype(int)
        self._parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(bounds)]
        self._pipes: list[Any] = []
        self._processes: list[Any] = []
        # Before multiprocessing's own end, which would wait for the processes.
        self._end = util.Finalize(self, _end, (self._pipes, self._processes), exitpriority=100)
        for index, part in enumerate(self._parts):
            ours, theirs = context.Pipe()
            arguments = (task, layout, memory, part, theirs)
            process = context.Process(target=_work, args=arguments, name=f"environments {index}", daemon=True)
            process.start()
            theirs.close()  # so that the worker's end is seen here
            self._pipes.append(ours)
            self._processes.append(process)

    def reset(self, seeds: Sequence[int] | None) -> None:
        for pipe, part in zip(self._pipes, self._parts, strict=True):
            self._tell(pipe, _RESET)
            pipe.send(None if seeds is None else list(seeds[part]))
        self.finish()

    def begin(self) -> None:
        for pipe in self._pipes:
            self._tell(pipe, _STEP)

    def finish(self) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            answer = b""
            with contextlib.suppress(ConnectionResetError):  # it has ended
                answer = os.read(pipe.fileno(), 1)
            if answer == _DONE:
                continue
            if answer == _FAILED:
                raise EnvironmentFailedError(pipe.recv())
            process.join(_END_WITHIN_SECONDS)
            raise EnvironmentFailedError(
                f"the process that stepped {self._task.id} ended ({_ending(process.exitcode)})"
            )

    def _tell(self, pipe: Any, command: bytes) -> None:
        try:
            os.write(pipe.fileno(), command)
        except (BrokenPipeError, ConnectionResetError):
            return  # it has ended, which finish() reports

    def render(self) -> list[npt.NDArray[Any]]:
        raise EnvironmentFailedError(f"{self._task.id} is rendered in one process only")

    def close(self) -> None:
        self._end()


def _end(pipes: list[Any], processes: list[Any]) -> None:
    for pipe in pipes:
        with contextlib.suppress(OSError):  # it has ended
            os.write(pipe.fileno(), _QUIT)
        pipe.close()
    for process in processes:
        process.join(_END_WITHIN_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _ending(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _work(task: GymnasiumTask, layout: Layout, memory: Any, part: slice, pipe: Any) -> None:
    """One process: steps and resets its part whenever the pipe says so, until it says to quit or is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever started it says when to stop
        signal.signal(number, signal.SIG_IGN)
    environments: Environments | None = None
    descriptor = pipe.fileno()
    try:
        while (command := os.read(descriptor, 1)) not in (b"", _QUIT):
            seeds = pipe.recv() if command == _RESET else None
            try:
                if environments is None:
                    environments = _make(task, layout.place(memory).rows(part))
                if command == _RESET:
                    environments.reset(seeds)
                else:
                    environments.finish()
            except Exception as error:
                os.write(descriptor, _FAILED)
                pipe.send(str(error))
            else:
                os.write(descriptor, _DONE)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass  # nobody is there to step for
    finally:
        if environments is not None:
            environments.close()


def _make(task: GymnasiumTask, results: Results) -> Environments:
    # Converters of observations are functions that do not travel: they are made here, of the environment's own space.
    probe = task.make()
    leaves = leaves_of(probe.observation_space)
    probe.close()
    return Environments(task, leaves, results)
