"""Requests to stop by signals: the loop that trains finishes its update, saves, and ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Self

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to stop: Ctrl-C, job schedulers, a terminal that is closed."""


class StopRequest:
    """Context manager that turns SIGINT, SIGTERM and SIGHUP into a request to stop.

    The first signal sets :attr:`number`, which the loop looks at when it can stop. A second SIGINT (Ctrl-C again)
    raises KeyboardInterrupt at once; more of SIGTERM and SIGHUP change nothing, because job schedulers and launchers
    send them to a process more than once. A SIGHUP that was ignored before (``nohup``) stays ignored. When the
    terminal is gone, output that would have gone there is dropped, so that it cannot fail before everything is saved.

    Handlers are restored at the end. Outside of the main thread, which alone can handle signals, nothing is ever
    requested.

    Example::

        with StopRequest() as stop:
            while not stop:
                update()
        save()
        sys.exit(stop.exit_status)
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The first signal that came; None if none did."""
        self._handlers: dict[int, object] = {}
        self._terminals: list[int] = []

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def exit_status(self) -> int:
        """What a process ends with: 128 + the signal's number, as shells have it; 0 without a signal."""
        return 0 if self.number is None else 128 + self.number

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            # None stands for a handler that was not installed from Python, and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # type: ignore[arg-type]
        self._handlers.clear()

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        elif number == signal.SIGHUP:
            self._drop_output_to_lost_terminals()

    def _drop_output_to_lost_terminals(self) -> None:
        for descriptor in self._terminals:
            if not os.isatty(descriptor):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)
