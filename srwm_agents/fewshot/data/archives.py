"""File containers of data sets (folder, zip, gzipped tar) behind one interface, with limits on their sizes."""

from __future__ import annotations

import functools
import gzip
import os
import posixpath
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from srwm_agents.files import printable

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that is read, whatever it is packed in."""
MAX_TAR_BYTES = 512 * 2**20
"""Most bytes that a tar is unpacked to."""
MAX_FILES = 5_000_000
"""Most files of a container."""
MAX_DEPTH = 32
"""Most folders in each other."""

_SYSTEM_NAMES = {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class DataError(ValueError):
    """Images are missing, damaged or not what was expected; one line names the file and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class AbsentError(DataError):
    """There is nothing of what was asked for, which is another thing than something damaged."""


class Member(NamedTuple):
    """A file in a container, before it is read."""

    stamp: str
    """Changes with its content."""
    problem: str = ""
    """Why it cannot be read, if that is known beforehand."""


class Archive(Protocol):
    """A container of named files; reading is safe from several threads."""

    name: str

    def members(self) -> dict[str, Member]:
        """Each file by its path, with forward slashes; without hidden files and what operating systems add."""
        ...

    def read(self, member: str) -> bytes:
        """The content of a file; :class:`DataError` if it cannot be read."""
        ...


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is hidden (a name with a dot in front) or the operating system's."""
    return any(part.startswith(".") or part in _SYSTEM_NAMES for part in path.split("/"))


class Folder:
    """A folder on disk; links are followed."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def members(self) -> dict[str, Member]:
        return dict(_few(sorted(self._walk(self.name, "", ())), self.name))

    def _walk(self, folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[tuple[str, Member]]:
        real = os.path.realpath(folder)
        if real in above:
            raise DataError(f"{folder} is a link to a folder that it is in")
        if len(above) == MAX_DEPTH:
            raise DataError(f"{folder} is in {MAX_DEPTH} other folders of {self.name}, allowed: fewer")
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir():
                        yield from self._walk(entry.path, f"{prefix}{entry.name}/", (*above, real))
                    else:
                        yield f"{prefix}{entry.name}", _on_disk(entry)
        except OSError as error:
            raise DataError(f"{error.filename or folder} cannot be read: {error.strerror}") from error

    def read(self, member: str) -> bytes:
        try:
            with (self.path / member).open("rb") as file:
                return file.read(MAX_FILE_BYTES)
        except OSError as error:
            raise DataError(f"{self.name}: {member} cannot be read: {error.strerror}") from error


def _on_disk(entry: os.DirEntry[str]) -> Member:
    try:
        about = entry.stat()
    except FileNotFoundError:
        return Member("", "is a link to something that does not exist")
    if not stat.S_ISREG(about.st_mode):
        return Member("", "is no file (a device, pipe or socket)")
    return Member(f"{about.st_size}:{about.st_mtime_ns}", _too_large(about.st_size))


class Zip:
    """A zip file, open as long as this object exists."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
            infos = (info for info in self._zip.infolist() if not info.is_dir())
            named = ((_plain(info.filename), info) for info in infos)
            self._infos = dict(_few(((name, info) for name, info in named if not is_hidden(name)), self.name))
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # of a damaged list of contents, the module raises what it stumbles over
            raise DataError(f"{path} is no zip file, or only a part of one: {error}") from error

    def members(self) -> dict[str, Member]:
        return {name: Member(f"{info.CRC:08x}", _zipped(info)) for name, info in self._infos.items()}

    def read(self, member: str) -> bytes:
        info = self._infos[member]
        if problem := _zipped(info):
            raise DataError(f"{self.name}: {member} {problem}")
        with self._lock:
            try:
                return self._zip.read(info)
            except Exception as error:  # of damaged files, the module and its decompressors raise many kinds
                raise DataError(f"{self.name}: {member} is damaged: {error}") from error


def _zipped(info: zipfile.ZipInfo) -> str:
    """What stands in the way of reading a file in a zip."""
    if info.flag_bits & 1:
        return "is protected by a password; unpack the zip, and give the folder"
    if info.compress_type not in _ZIP_METHODS:
        method = zipfile.compressor_names.get(info.compress_type, "unknown")  # type: ignore[attr-defined]
        return f"is packed by a method that is not supported ({method}); unpack the zip, and give the folder"
    return _too_large(info.file_size)


def _too_large(size: int) -> str:
    return f"has {size:,} bytes, allowed: {MAX_FILE_BYTES:,}" if size > MAX_FILE_BYTES else ""


class TarGz:
    """A gzipped tar, read into memory as a whole at first use, since gzip has no random access."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    @functools.cached_property
    def _files(self) -> dict[str, bytes]:
        try:
            with gzip.open(self.path) as unpacked, _open_stream(_Limited(unpacked)) as tar:
                # Links are left out: they may name anything.
                files = ((_plain(member.name), tar.extractfile(member)) for member in tar if member.isfile())
                contents = ((name, file.read()) for name, file in files if file and not is_hidden(name))
                return dict(_few(contents, self.name))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        except Exception as error:  # of damaged files, the modules and their decompressor raise many kinds
            raise DataError(f"{self.path} is no gzipped tar, or only a part of one: {error}") from error

    def members(self) -> dict[str, Member]:
        about = self.path.stat()
        return dict.fromkeys(self._files, Member(f"{about.st_size}:{about.st_mtime_ns}"))

    def read(self, member: str) -> bytes:
        return self._files[member]


def _open_stream(file: Any) -> tarfile.TarFile:
    return tarfile.open(fileobj=file, mode="r|")  # which reads, and does nothing else


class _Limited:
    """A file that ends in an error where it is longer than ``MAX_TAR_BYTES``."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file, self._left = file, MAX_TAR_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise DataError(f"unpacked it has more than {MAX_TAR_BYTES:,} bytes, which are allowed")
        return self._file.read(size)


def _plain(path: str) -> str:
    """The path of a file in an archive: some have ./ in front, and some programs for Windows write backslashes."""
    return posixpath.normpath(path.replace("\\", "/")).lstrip("/")


def _few(files: Iterable[tuple[str, Any]], name: str) -> Iterator[tuple[str, Any]]:
    for number, file in enumerate(files):
        if number == MAX_FILES:
            raise DataError(f"{name} has more than {MAX_FILES:,} files, which are allowed")
        yield file


_OPENERS: dict[str, Callable[[Path], Archive]] = {".zip": Zip, ".tar.gz": TarGz}


def find_archives(data_dir: Path, folder: str, patterns: tuple[str, ...]) -> Iterator[tuple[Archive, str]]:
    """Find the containers of a data set: (archive, path of its root inside, "" or ending with a slash).

    Candidates are ``data_dir`` itself if its name is ``folder``, ``data_dir/folder``, and the files in ``data_dir``
    that match one of ``patterns`` in capital or small letters (or ``data_dir`` itself, if it is a file). In a file,
    the root is a folder named ``folder``, or the top if there is none.

    Raises:
        AbsentError: ``data_dir`` does not exist; DataError: a file is no zip or gzipped tar.
    """
    if not data_dir.exists():
        raise AbsentError(f"--data_dir is {data_dir}, which does not exist")
    if data_dir.is_file():
        candidates = [data_dir]
    else:
        if data_dir.resolve().name == folder:
            yield Folder(data_dir), ""
        if (data_dir / folder).is_dir():
            yield Folder(data_dir / folder), ""
        files = [file for file in data_dir.iterdir() if any(fnmatchcase(file.name.lower(), p) for p in patterns)]
        candidates = sorted(file for file in files if file.is_file())
    for file in candidates:
        opener = next((o for ending, o in _OPENERS.items() if file.name.lower().endswith(ending)), None)
        if opener is None:
            raise DataError(f"{file} is neither a folder nor one of: {', '.join(_OPENERS)}")
        archive = opener(file)
        # A slash in front: the folder, and no other whose name ends like it.
        ends = {member: f"/{member}".find(f"/{folder}/") for member in archive.members()}
        roots = sorted({f"{member[:end]}{folder}/" for member, end in ends.items() if end >= 0})
        for root in roots or [""]:
            yield archive, root
