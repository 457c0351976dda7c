"""Imports that go on while something else takes its time."""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FOR_TRAINED_NETWORKS = ("torch._dynamo",)
"""What PyTorch imports, for two seconds or more, at the first call of a custom operator and at the first optimiser."""


@contextmanager
def imported_meanwhile(*names: str) -> Iterator[None]:
    """Import modules in a thread while the block runs, which should itself import none of them.

    It pays where the block waits for C or C++, as for a simulator that reads its images. When the block ends, so have
    the imports. One that fails does so in silence, and again where the module is needed.
    """
    missing = [name for name in names if name not in sys.modules]

    def import_all() -> None:
        for name in missing:
            with contextlib.suppress(Exception):
                importlib.import_module(name)

    thread = threading.Thread(target=import_all, name="imports", daemon=True)
    if missing:
        thread.start()
    try:
        yield
    finally:
        if missing:
            thread.join()
