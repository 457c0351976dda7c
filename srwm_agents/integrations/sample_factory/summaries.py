"""TensorBoard's files: those of killed runs, and those on a disk that is full or in a folder that is gone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sample_factory.utils.utils import log
from tensorboardX.proto import event_pb2


def hide_later_steps(writer: Any, frames: int) -> None:
    """Have TensorBoard hide what killed runs in the same folder wrote of more than ``frames``, and did not save.

    As tensorboardX's ``purge_step`` does, which Sample Factory has no way to set.

    Args:
        writer: tensorboardX's ``SummaryWriter``, to which nothing has been added yet.
        frames: of the checkpoint that this run goes on from; 0 without one.
    """
    messages: Any = event_pb2  # made at run time
    start = messages.SessionLog(status=messages.SessionLog.START)
    for content in ({"file_version": "brain.Event:2"}, {"session_log": start}):
        writer.file_writer.add_event(messages.Event(step=frames + 1, **content))


def tolerate_write_errors(writer: Any) -> None:
    """Let summaries that cannot be written be lost.

    tensorboardX writes in a thread. An error ends the thread with a traceback, and what is added later waits for ever
    for room in its queue.

    Args:
        writer: tensorboardX's ``SummaryWriter``.
    """
    events = writer.file_writer.event_writer._ev_writer
    told = False

    def tolerant(write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def write_or_drop(*args: Any) -> Any:
            try:
                return write(*args)
            except OSError as error:
                nonlocal told
                if not told:
                    log.warning("TensorBoard's summaries cannot be written: %s", error)
                told = True
                return None

        return write_or_drop

    events.write_event, events.flush = tolerant(events.write_event), tolerant(events.flush)
