"""Construction of the C++ simulator; the only module that imports Procgen."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib
import warnings
from typing import Any

from srwm_agents.extras import MissingPackageError, require

INSTALL_LIBRARIES = "apt-get install -y libgl1 libglib2.0-0"


class SimulatorError(RuntimeError):
    """Procgen cannot start on this machine; the message says what to do."""


def hush_gym() -> None:
    """Suppress the deprecation notice that the unmaintained ``gym``, a dependency of Procgen, prints when imported."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("gym_notices.notices").notices.clear()


def new_simulator(**options: Any) -> Any:
    """Make a ``ProcgenGym3Env``; ``options`` of its constructor, validated by the caller.

    Raises:
        SimulatorError: Procgen or the system libraries that it links to are missing.
    """
    try:
        require("procgen", "procgen")
    except MissingPackageError as error:
        raise SimulatorError(str(error)) from error
    hush_gym()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        procgen = importlib.import_module("procgen")
    try:
        return procgen.ProcgenGym3Env(**options)
    except OSError as error:
        missing = [name for name in ("GL", "glib-2.0") if ctypes.util.find_library(name) is None]
        raise SimulatorError(
            f"Procgen's library does not load ({error}); missing: {', '.join(missing) or 'unknown'}; "
            f"install with: {INSTALL_LIBRARIES}"
        ) from error
