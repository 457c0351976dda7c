"""Shared by all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._device import _device_constructors

if not torch.cuda.is_available():
    # Read when Triton is first imported, which any test may do: kernels then run in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests run side by side on few cores; threads of one, or of a process that it starts, would wait for those of another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# For small_environments.py, which processes that step environments import by its name.
sys.path.append(str(Path(__file__).parent))

# Looked up once for all: not while a test has something else in the place of torch.empty.
_device_constructors()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Side by side in one place, those that start clusters of several processes are one worker's, one after another.
    items.sort(key=lambda item: "cluster" not in item.keywords)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


def is_file_operation(function: Any) -> bool:
    """Whether a function in C is one of those that read, write, move, sync or lock files."""
    owner = type(getattr(function, "__self__", None)).__module__
    return owner == "_io" or getattr(function, "__module__", None) in {"posix", "io", "_io", "fcntl"}


def killed_at(operation: int, action: Callable[[], Any]) -> bool:
    """Run an action in a forked process that ends at once before its file operation of that number (from 0).

    Which functions an action calls is not listed anywhere: the interpreter reports every call of one in C.

    Returns:
        False if the action ended before, with fewer operations.
    """
    process = os.fork()
    if process == 0:
        count = 0

        def watch(_frame: Any, event: str, function: Any) -> None:
            nonlocal count
            if event == "c_call" and is_file_operation(function):
                if count == operation:
                    os._exit(9)
                count += 1

        status = 1
        try:
            sys.setprofile(watch)
            action()
            sys.setprofile(None)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, 9), "the action failed"
    return status == 9


@pytest.fixture
def kill_everywhere() -> Callable[..., int]:
    """``kill_everywhere(prepare, action, check)``: kill ``action`` before each of its file operations in turn.

    ``prepare`` runs before each attempt and ``check`` after it, also after the last one, which is not killed. Returns
    the number of operations.
    """

    def run(prepare: Callable[[], Any], action: Callable[[], Any], check: Callable[[], Any]) -> int:
        operation, killed = 0, True
        while killed:
            prepare()
            killed = killed_at(operation, action)
            check()
            operation += killed
        return operation

    return run


@pytest.fixture(scope="session")
def package_files() -> Callable[..., set[Path]]:
    """``package_files(*names, without=())``: the top-level files and folders of packages installed here.

    Those of all that they need are among them, but for the packages ``without`` and what only these need. Linked into
    another virtual environment, which has other versions of ``without``, they need not be installed there.
    """
    from packaging.requirements import Requirement

    def files_of(*names: str, without: tuple[str, ...] = ()) -> set[Path]:
        found, wanted, files = set(without), list(names), set()
        while wanted:
            name = wanted.pop().lower().replace("_", "-")
            if name in found:
                continue
            found.add(name)
            try:
                package = distribution(name)
            except PackageNotFoundError:  # of another platform
                continue
            tops = {file.parts[0] for file in package.files or () if file.parts[0] not in ("..", "__pycache__")}
            files |= {Path(str(package.locate_file(top))).absolute() for top in tops}
            requirements = map(Requirement, package.requires or ())
            wanted += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
        return files

    return files_of


@pytest.fixture(scope="session")
def run_pip() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``run_pip(venv, *arguments)``: run pip on a virtual environment, and on nothing else."""
    # What lies on PYTHONPATH, pip would list too.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(venv: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "--python", venv, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


OFFLINE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError")
"""Of these pip's messages have one where it reaches no index."""


@pytest.fixture(scope="session")
def pip_install(run_pip: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., None]:
    """``pip_install(venv, *arguments)``: run pip on a virtual environment; skip the test where pip reaches no index."""

    def install(venv: Path, *arguments: str | Path) -> None:
        pip = run_pip(venv, "install", "-q", "--retries", "1", *arguments)
        if pip.returncode and any(sign in pip.stderr for sign in OFFLINE):
            pytest.skip(f"pip reaches no package index: {pip.stderr.splitlines()[-1]}")
        assert pip.returncode == 0, pip.stderr

    return install
