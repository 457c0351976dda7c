"""Atomic file replacement: a reader finds the old content or the new one, whole, whenever the writer is killed."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

_TEMPORARY = re.compile(r"^\.tmp-[0-9a-f]{8}-.")


def write_atomically(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], Any]) -> Path:
    """Replace a file by one ``os.replace``, after its content is on the disk.

    The content goes to a temporary file in the same folder, which keeps the file's ending, for writers that choose a
    format by it. File and folder are synced. The file gets the permissions of a new one (the process's umask). If
    writing fails, the temporary file is removed and ``path`` stays as it was; after a kill, :func:`remove_leftovers`
    removes it. Several processes may write the same file: the last one wins.

    Args:
        path: the file; its folder is made if it is missing.
        content: bytes, text (as UTF-8), or a function that writes the path it is given.

    Returns:
        ``path``.

    Raises:
        OSError: the file cannot be written; it names ``path``. And whatever ``content`` raises.
    """
    target = Path(path)
    with _naming(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(target) as temporary:
            _write(temporary, content)
            temporary.replace(target)
        _sync(target.parent)
    return target


def write_together(contents: Mapping[Path, bytes | str | Callable[[Path], Any]]) -> list[Path]:
    """Replace files of one folder that belong together: where the last one is, all are of one writing.

    All are on the disk before any is replaced: if writing fails or is killed until then, all stay as they were. Then
    the last one is removed, the others are replaced one after the other, and the last one is put in its place. A kill
    within these moments leaves the files without the last one.

    Args:
        contents: files, all in the same folder, and what :func:`write_atomically` takes for each.

    Returns:
        The files, in their order.

    Raises:
        OSError: a file cannot be written; it names that file. And whatever a content raises.
    """
    *others, last = targets = list(contents)
    with ExitStack() as stack:
        temporaries = {}
        for target in targets:
            with _naming(target):
                last.parent.mkdir(parents=True, exist_ok=True)
                temporaries[target] = stack.enter_context(_temporary_beside(target))
                _write(temporaries[target], contents[target])
        last.unlink(missing_ok=True)
        _sync(last.parent)
        for target in others:
            temporaries[target].replace(target)
        _sync(last.parent)
        temporaries[last].replace(last)
    _sync(last.parent)
    remove_leftovers(last.parent)
    return targets


def printable(text: str, most: int = 1000) -> str:
    r"""Text as one line that any terminal takes, of ``most`` characters.

    A file's name may hold line ends, and bytes that are no UTF-8; what a library says of a file may hold all of it.

    >>> printable("caf\udce9\n.png")
    'caf\\udce9\\n.png'
    """
    cut = text if len(text) <= most else f"{text[:most]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files in ``folder`` whose writers were killed; those that are being written stay."""
    for file in Path(folder).iterdir():
        if not _TEMPORARY.match(file.name):
            continue
        try:
            descriptor = os.open(file, os.O_RDWR)
        except OSError:  # it has just been moved to its place, or is another user's
            continue
        try:
            if _lock(descriptor):
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def _naming(target: Path) -> Iterator[None]:
    """Have errors of files name ``target``: Python names no file where a disk is full, else the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error


def _write(temporary: Path, content: bytes | str | Callable[[Path], Any]) -> None:
    if callable(content):
        content(temporary)
    else:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    _sync(temporary)


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """A new empty file in the folder of ``target``, locked while its writer lives, removed if the block fails."""
    while True:
        temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # else it was removed as a leftover before it was locked
            break
        os.close(descriptor)
    try:
        yield temporary
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file, without waiting; False if another process has it locked or the file system has no locks."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except OSError:
        return False
    return True


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
