"""File containers of data sets (folder, zip, gzipped tar) behind one interface."""

from __future__ import annotations

import functools
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from PIL import Image, UnidentifiedImageError


class DataError(ValueError):
    """Images are missing, damaged or not what was expected; the message names the file and what to do."""


class Archive(Protocol):
    """A container of named files; reading is safe from several threads."""

    name: str

    def members(self) -> dict[str, str]:
        """Map each file's path, with forward slashes, to a stamp that changes with its content."""
        ...

    def read(self, member: str) -> bytes:
        """The content of a file."""
        ...


class Folder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def members(self) -> dict[str, str]:
        return {
            file.relative_to(self.path).as_posix(): f"{file.stat().st_size}:{file.stat().st_mtime_ns}"
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }

    def read(self, member: str) -> bytes:
        return (self.path / member).read_bytes()


class Zip:
    """A zip file, open as long as this object exists."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is no zip file, or only a part of one: {error}") from error

    def members(self) -> dict[str, str]:
        return {info.filename: f"{info.CRC:08x}" for info in self._zip.infolist() if not info.is_dir()}

    def read(self, member: str) -> bytes:
        with self._lock:
            try:
                return self._zip.read(member)
            except (zipfile.BadZipFile, EOFError, OSError) as error:
                raise DataError(f"{self.name}: {member} is damaged: {error}") from error


class TarGz:
    """A gzipped tar, read into memory as a whole at first use, since gzip has no random access."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    @functools.cached_property
    def _files(self) -> dict[str, bytes]:
        try:
            with tarfile.open(self.path) as tar:
                return {m.name: f.read() for m in tar if (f := tar.extractfile(m)) is not None}
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{self.path} is no gzipped tar, or only a part of one: {error}") from error

    def members(self) -> dict[str, str]:
        stamp = f"{self.path.stat().st_size}:{self.path.stat().st_mtime_ns}"
        return dict.fromkeys(self._files, stamp)

    def read(self, member: str) -> bytes:
        return self._files[member]


_OPENERS: dict[str, Callable[[Path], Archive]] = {".zip": Zip, ".tar.gz": TarGz}


def find_archives(data_dir: Path, folder: str, patterns: tuple[str, ...]) -> Iterator[tuple[Archive, str]]:
    """Find the containers of a data set: (archive, path of its root inside, "" or ending with a slash).

    Candidates are ``data_dir`` itself if its name is ``folder``, ``data_dir/folder``, and the files in ``data_dir``
    that match one of ``patterns`` (or ``data_dir`` itself, if it is a file).

    Raises:
        DataError: ``data_dir`` does not exist, or a file is no zip or gzipped tar.
    """
    if not data_dir.exists():
        raise DataError(f"--data_dir is {data_dir}, which does not exist")
    if data_dir.is_file():
        candidates = [data_dir]
    else:
        if data_dir.resolve().name == folder:
            yield Folder(data_dir), ""
        if (data_dir / folder).is_dir():
            yield Folder(data_dir / folder), ""
        candidates = sorted({file for pattern in patterns for file in data_dir.glob(pattern) if file.is_file()})
    for file in candidates:
        opener = next((o for ending, o in _OPENERS.items() if file.name.endswith(ending)), None)
        if opener is None:
            raise DataError(f"{file} is neither a folder nor one of: {', '.join(_OPENERS)}")
        archive = opener(file)
        roots = {member[: member.index(f"{folder}/")] for member in archive.members() if f"{folder}/" in member}
        for root in sorted(roots):
            yield archive, f"{root}{folder}/"


def open_image(archive: Archive, member: str) -> Image.Image:
    """Decode one image file; :class:`DataError` if it is no image or damaged."""
    try:
        image = Image.open(io.BytesIO(archive.read(member)))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{archive.name}: {member} is no image, or a damaged one: {error}") from error
    return image
