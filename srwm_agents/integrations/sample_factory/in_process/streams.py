"""Streams of a device, and event loops that run on one; on a CPU, where work is done when it is called, nothing."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import torch
from signal_slot.signal_slot import EventLoop


class Mark:
    """A place in a stream's work that a host thread or another stream can wait for."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        """Here: after what the calling thread's current stream has been given so far."""
        if self._event is not None:
            self._event.record()

    def hold(self) -> None:
        """What the current stream is given from now on waits for the mark; the caller does not."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)

    def wait(self) -> None:
        """The caller waits for the mark."""
        if self._event is not None:
            self._event.synchronize()


def wait_for_stream(device: torch.device) -> None:
    """Until all that the calling thread's current stream was given is done; other streams go on."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


class LoopThread:
    """A thread that runs a signal-slot event loop, its device work on a stream of its own."""

    def __init__(self, name: str, device: torch.device, *, priority: int = 0) -> None:
        """``priority`` of the stream, as CUDA's: lower is served first."""
        self.name = name
        self.event_loop = EventLoop(f"{name}_evt_loop", serial_mode=True)
        self._stream = torch.cuda.Stream(device, priority=priority) if device.type == "cuda" else None
        # A daemon: a run that failed must not wait for a thread that is stuck.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failed = False
        """Whether an exception ended the loop; Sample Factory's log has it."""

    def start(self) -> None:
        """Begin to run the loop."""
        self._thread.start()

    def _run(self) -> None:
        on_stream: Any = contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        try:
            with on_stream:
                self.event_loop.exec()
        except Exception:
            self.failed = True

    def join(self, seconds: float | None = None) -> None:
        """Wait for the loop to end, as it does when its owner was told to stop."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
