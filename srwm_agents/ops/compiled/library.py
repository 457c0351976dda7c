"""Compiles the C files of this folder when first asked for, keeps the library in the user's cache, loads it.

The compiler is ``$CC``, else the first of cc, gcc and clang on the path, else that of the ``ziglang`` package, which
the extra ``cpu`` installs where a machine has none. Compiling takes two seconds (with ziglang seven), once per machine:
the file's name is a hash of the source, the flags, the compiler and the processor.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srwm_agents.ops.checks import BackendUnavailableError

SOURCES = tuple(Path(__file__).with_name(name) for name in ("srwm.c", "delta.c", "memories.h"))
LANES = 8
"""Numbers in a vector: AVX2 has registers of eight, and other processors make it of smaller ones."""
CHUNK = 32
"""Steps between two matrices that a forward pass keeps for the backward pass."""
FLAGS = ("-std=gnu11", "-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread", f"-DLANES={LANES}", f"-DCHUNK={CHUNK}")
"""Not -ffast-math: a reset must drop what is not finite, and what is not finite must show."""
NATIVE = "-march=native"
"""Left out where a compiler does not know it."""
WORK_PER_THREAD = 1 << 20
"""Entries of matrices, times steps, that are worth a thread of their own: 170 µs of a forward pass. A thread takes some
20 to start, and at first shares its processor with one of PyTorch's that waits for work."""


class CompilationError(Exception):
    """The kernels cannot be compiled or loaded; the message is one line."""


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/srwm_agents/kernels``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srwm_agents" / "kernels"


def compiler() -> list[str]:
    """The command of the C compiler.

    Raises:
        CompilationError: there is none.
    """
    if given := shlex.split(os.environ.get("CC", "")):
        if shutil.which(given[0]) is None:
            raise CompilationError(f"CC is {os.environ['CC']!r}, and {given[0]} is not on the path")
        return given
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise CompilationError("there is no C compiler (cc, gcc or clang); install one or: pip install 'srwm-agents[cpu]'")


def processor() -> str:
    """What distinguishes this processor from others that may share the cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = (line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    return "\n".join(sorted(set(told)))


def build(folder: Path) -> Path:
    """Compile the kernels into ``folder`` unless they are there; returns the shared library's path.

    Raises:
        CompilationError: no compiler, or it fails.
        OSError: the folder cannot be written.
    """
    command = compiler()
    about = (*(source.read_text() for source in SOURCES), *FLAGS, NATIVE, platform.machine(), processor())
    about = (*about, *command, os.path.realpath(shutil.which(command[0]) or command[0]))
    library = folder / f"memories-{hashlib.sha256(repr(about).encode()).hexdigest()[:24]}.so"
    if library.exists():
        return library
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sources = [str(source) for source in SOURCES if source.suffix == ".c"]
    # Under another name until it is whole: other processes may be looking for it.
    with tempfile.TemporaryDirectory(dir=folder) as own:
        made = Path(own) / library.name
        for flags in ((*FLAGS, NATIVE), FLAGS):
            result = subprocess.run(
                [*command, *flags, "-w", "-o", str(made), *sources, "-lm"],
                capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if result.returncode == 0:
                made.replace(library)
                return library
    said = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    error = next((line for line in said if "error" in line), said[-1] if said else f"exit status {result.returncode}")
    raise CompilationError(f"{' '.join(command)} failed: {error}")


def _constant(function: Any) -> Any:
    """What ``torch.compiler.assume_constant_result`` does, which imports a compiler for seconds."""
    function._dynamo_marked_constant = True
    return function


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    try:
        try:
            return ctypes.CDLL(str(build(cache_dir()))), None
        except (OSError, RuntimeError):  # no home, one that cannot be written or run from, a file cut short by a crash
            with tempfile.TemporaryDirectory(prefix="srwm_agents_kernels_") as own:  # for this process alone
                return ctypes.CDLL(str(build(Path(own)))), None
    except (CompilationError, OSError) as error:
        return None, str(error)


def library() -> ctypes.CDLL:
    """The compiled kernels; :func:`use_compiled` has said that there are any."""
    loaded, reason = _load()
    if loaded is None:
        raise BackendUnavailableError(f"backend 'cpu' cannot run here: {reason}")
    return loaded


@_constant
def unavailable() -> str | None:
    """Why there are no compiled kernels on this machine, in one line; None: there are."""
    return _load()[1]


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(
        f"the memories run on PyTorch alone, several times slower than compiled for this CPU: {reason} "
        "(backend='naive' runs them so without this warning)",
        RuntimeWarning,
        stacklevel=2,
    )


@_constant
def _available() -> bool:
    """Whether there are compiled kernels; says once why not."""
    reason = unavailable()
    if reason is not None:
        _warn(reason)
    return reason is None


def use_compiled(backend: str, tensor: Tensor) -> bool:
    """Whether ``backend`` ("auto" | "naive" | "triton" | "cpu") means the compiled kernels for ``tensor``.

    "auto" takes them for tensors of float32 and bfloat16 on a CPU where they can be compiled, and warns once where they
    cannot; "cpu" raises ``BackendUnavailableError`` if they cannot run, with the reason.
    """
    fits = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bfloat16)
    if backend == "auto":
        return fits and _available()
    if backend != "cpu":
        return False
    reason = None
    if tensor.device.type != "cpu":
        reason = f"it needs tensors on a CPU, not {tensor.device.type}"
    elif not fits:
        reason = f"it takes torch.float32 or torch.bfloat16, not {tensor.dtype}"
    if reason := reason or unavailable():
        raise BackendUnavailableError(f"backend 'cpu' cannot run here: {reason}")
    return True


def threads_for(work: int) -> int:
    """Threads for so many entries times steps: PyTorch's number, fewer where that is more than the work is worth."""
    return max(1, min(torch.get_num_threads(), work // WORK_PER_THREAD))


def run(kernel: str, call: ctypes.Structure) -> None:
    """Run a kernel.

    Raises:
        MemoryError: there was none for the kernel's own matrices.
    """
    if getattr(library(), kernel)(ctypes.byref(call)) != 0:
        raise MemoryError(f"no memory for {kernel}")


def padded(width: int) -> int:
    """``width`` in whole vectors."""
    return (width + LANES - 1) // LANES * LANES


def pointer(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers begin."""
    return None if tensor is None else tensor.data_ptr()


def as_read(tensor: Tensor) -> Tensor:
    """A tensor as kernels read it: float32, contiguous."""
    return tensor.to(torch.float32).contiguous()


def batch_strided(tensor: Tensor) -> Tensor:
    """``tensor`` [B, …] with each of the B contiguous. A part of a core's flat state is as it is: no copy is made."""
    if tensor.is_contiguous() or (len(tensor) and tensor[0].is_contiguous()):
        return tensor
    return tensor.contiguous()


@contextmanager
def written_as_float(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """What a kernel writes in the place of ``tensors``: themselves, or float32 that is rounded to them afterwards."""
    wide = [z if z.dtype == torch.float32 else torch.empty_like(z, dtype=torch.float32) for z in tensors]
    yield wide
    for tensor, written in zip(tensors, wide, strict=True):
        if written is not tensor:
            tensor.copy_(written)
