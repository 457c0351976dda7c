"""Signs of life between the processes that ``torchrun`` started, and their messages to the main one."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from srwm_agents.launch import Launch

_EVERY_SECONDS = 1.0
_LONGEST_LOOK_SECONDS = 2.0
"""What a pause between two looks counts at most: while all processes are suspended, none is late."""
SILENT_SECONDS = 15.0
"""How long a process may give no sign of life. Python's lock is not held for as long by anything that training does."""
GRACE_SECONDS = 8.0
"""After a report, for the main thread to end in order; it may be waiting for the process that is gone."""


def connect_store(launch: Launch) -> Store:
    """Connect to the key-value store by which the process group was formed.

    A connection of its own: a call that waits on the group's would hold up all others.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False)
    # The store outlives the processes that torchrun starts anew.
    return PrefixStore(f"srwm_agents/{launch.attempt}", store)


class Peers(threading.Thread):
    """Watches the other processes, and carries messages to the main one; a daemon thread.

    A process that is killed, or stands still, leaves the others waiting in a collective call. Here each writes a number
    that grows, once a second; one whose number has not changed for :data:`SILENT_SECONDS` is reported. The main thread
    looks at :attr:`report` and ends; where it cannot, the process is ended after :data:`GRACE_SECONDS`.
    """

    def __init__(self, launch: Launch, store: Store, give_up: Callable[[str], Any]) -> None:
        """Make the thread, and give the first sign of life.

        Args:
            launch: the place of this process.
            store: of all processes; see :func:`connect_store`.
            give_up: called with the report where the main thread does not end; it must end the process.
        """
        super().__init__(name="peers", daemon=True)
        self.report: str | None = None
        """What is wrong with another process; None while nothing is."""
        self._launch = launch
        self._store = store
        self._give_up = give_up
        self._end = threading.Event()
        self._to_main: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        others = [rank for rank in range(launch.world_size) if rank != launch.rank]
        self._signs = dict.fromkeys(others, b"")
        self._silent = dict.fromkeys(others, 0.0)
        self._sent = 0
        self._fetched = dict.fromkeys(others, 0)
        self._give_sign(0)

    def send(self, message: bytes) -> None:
        """Send a message to the main process, within a second or two; none are sent after :meth:`end`."""
        self._to_main.put(message)

    def received(self) -> list[bytes]:
        """Messages that have come to the main process since the last call, in each process's order."""
        messages = []
        while not self._received.empty():
            messages.append(self._received.get())
        return messages

    def end(self) -> None:
        """End the thread: from here on the others may end as well."""
        self._end.set()
        if self.is_alive():
            self.join(GRACE_SECONDS)

    def run(self) -> None:
        """Look once a second, until :meth:`end` or a report."""
        before, number = time.monotonic(), 0
        while self.report is None and not self._end.wait(_EVERY_SECONDS):
            now, number = time.monotonic(), number + 1
            try:
                self._give_sign(number)
                self.report = self._look(min(now - before, _LONGEST_LOOK_SECONDS))
                self._carry()
            except (RuntimeError, OSError) as error:  # those of the store
                if not self._end.wait(_EVERY_SECONDS):  # at the end the store may go first
                    self.report = f"the store of torchrun's processes cannot be reached any more ({_first_line(error)})"
            before = now
        if self.report is not None and not self._end.wait(GRACE_SECONDS):
            self._give_up(self.report)

    def _give_sign(self, number: int) -> None:
        self._store.set(f"alive/{self._launch.rank}", str(number))

    def _look(self, seconds: float) -> str | None:
        """Read the others' signs, ``seconds`` after the last time; returns a report if one has been silent too long."""
        ranks = [rank for rank in self._signs if self._store.check([f"alive/{rank}"])]
        for rank, sign in zip(ranks, self._store.multi_get([f"alive/{rank}" for rank in ranks]), strict=True):
            self._silent[rank] = 0.0 if sign != self._signs[rank] else self._silent[rank] + seconds
            self._signs[rank] = sign
        silent = [rank for rank, since in self._silent.items() if since > SILENT_SECONDS]
        if not silent:
            return None
        names = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}"
        return f"no sign of life from {names} of torchrun's {self._launch.world_size} for {SILENT_SECONDS:.0f} s"

    def _carry(self) -> None:
        while not self._to_main.empty():
            self._store.set(f"mail/{self._launch.rank}/{self._sent}", self._to_main.get())  # type: ignore[arg-type]
            self._sent += 1
        if not self._launch.is_main:
            return
        for rank in self._fetched:
            while self._store.check([key := f"mail/{rank}/{self._fetched[rank]}"]):
                self._received.put(self._store.get(key))
                self._store.delete_key(key)
                self._fetched[rank] += 1


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
