"""CUDA stream synchronisation, and threads with an event loop and a stream of their own; no-ops on a CPU."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import torch
from signal_slot.signal_slot import EventLoop


class Mark:
    """A CUDA event that can be recorded again; on a CPU every method does nothing."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        """Record the event on the calling thread's current stream."""
        if self._event is not None:
            self._event.record()

    def hold(self) -> None:
        """Make later work of the current stream wait for the event; the caller does not wait."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)

    def wait(self) -> None:
        """Block the calling thread until the event has happened."""
        if self._event is not None:
            self._event.synchronize()


def wait_for_stream(device: torch.device) -> None:
    """Block until the calling thread's current stream is idle; other streams go on."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


class LoopThread:
    """A thread that runs a signal-slot event loop, with a CUDA stream of its own."""

    def __init__(self, name: str, device: torch.device, *, priority: int = 0) -> None:
        """``priority`` of the stream, as CUDA's: lower goes first."""
        self.name = name
        self.event_loop = EventLoop(f"{name}_evt_loop", serial_mode=True)
        self._stream = torch.cuda.Stream(device, priority=priority) if device.type == "cuda" else None
        # A daemon, so that a failed run does not wait for a stuck thread.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.failed = False
        """Whether an exception ended the loop; Sample Factory's log has it."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        on_stream: Any = contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        try:
            with on_stream:
                self.event_loop.exec()
        except Exception:
            self.failed = True

    def join(self, seconds: float | None = None) -> None:
        """Wait for the loop to end, at most ``seconds``; it ends when its owner is stopped."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
