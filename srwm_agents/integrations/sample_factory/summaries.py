"""TensorBoard's files on a disk that is full, or in a folder that is gone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sample_factory.utils.utils import log


def tolerate_write_errors(writer: Any) -> None:
    """Let summaries that cannot be written be lost.

    tensorboardX writes in a thread. An error ends the thread with a traceback, and what is added later waits for ever
    for room in its queue.

    Args:
        writer: tensorboardX's ``SummaryWriter``.
    """
    events = writer.file_writer.event_writer._ev_writer
    events.write_event = functools.partial(_tolerant, events.write_event)
    events.flush = functools.partial(_tolerant, events.flush)


def _tolerant(write: Callable[..., Any], *args: Any) -> Any:
    try:
        return write(*args)
    except OSError as error:
        log.warning("TensorBoard's summaries cannot be written: %s", error)
        return None
