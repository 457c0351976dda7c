"""Decoded images in a memory-mapped file, made once for each data set, folder, split and image size."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from srwm_agents.fewshot.data.archives import AbsentError, DataError
from srwm_agents.fewshot.data.listing import Listing
from srwm_agents.fewshot.data.specs import DatasetSpec
from srwm_agents.files import printable, remove_leftovers, write_atomically
from srwm_agents.settings import check_types

VERSION = 2
DEFAULT_DATA_DIR = Path("data")
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps a loop in a progress bar: (items, how many, description)."""

_LENGTH = 8
"""Bytes at the end of a cache file: the length of the text before them."""
_NAMED = 5
"""So many of the files that are left out are named."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSet:
    """All images of one split, decoded."""

    name: str
    split: str
    images: npt.NDArray[np.uint8]
    """[M, C, H, W], class after class; memory-mapped if it comes from a file."""
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    """Images of each class."""
    mean: tuple[float, ...]
    """Of each channel, over all pixels as they are fed, in [0, 1]."""
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.images) != sum(self.counts) or len(self.counts) != len(self.class_names):
            raise DataError(f"{self.name}: {len(self.images)} images do not match their classes")

    def with_channels(self, channels: int) -> ImageSet:
        """A grey set as one of more channels, all alike."""
        images = np.repeat(self.images, channels, axis=1)
        return replace(self, images=images, mean=self.mean * channels, std=self.std * channels)


@dataclass(frozen=True)
class _About:
    """What a cache file says of its images, as JSON after them."""

    version: int
    stamp: str
    """Of the :class:`Listing` that it was made from."""
    class_names: tuple[str, ...]
    counts: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class _Cached:
    about: _About
    images: npt.NDArray[np.uint8]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/srwm_agents/fewshot``, by default below ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srwm_agents" / "fewshot"


def load_split(
    spec: DatasetSpec,
    split: str,
    data_dir: Path,
    cache_dir: Path,
    image_size: int,
    channels: int,
    track: Track | None = None,
) -> ImageSet:
    """The decoded images, from the cache or else from the archives.

    A cache file belongs to a folder, and one that was made from other files than those in it now is made anew. Where
    the archives of a data set with a name are gone, or were never there, the newest cache of it is used as it is: it
    can be copied to another machine. Files that are left out are counted and named in a logged warning.

    Raises:
        DataError: neither archives nor cache; a folder that is not there, unless it is the default one, which nobody
            need have named; a damaged or unusable image, by name; a cache that cannot be written.
    """
    where = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    stem = f"{spec.name}-{image_size}x{image_size}x{channels}-{split}"
    file = cache_dir / f"{stem}-{where}.npy"
    size = (channels, image_size, image_size)
    try:
        listing = spec.list_split(data_dir, split)
    except AbsentError:
        cached = None
        # A user's own folder has no name to tell its cache by.
        if spec.name != "folder" and (data_dir.exists() or data_dir == DEFAULT_DATA_DIR):
            cached = next((found for other in _newest(cache_dir, stem) if (found := _read(other, size))), None)
        if cached is None:
            raise
    except OSError as error:
        raise DataError(f"{error.filename or data_dir} cannot be read: {error.strerror or error}") from error
    else:
        _report(listing, data_dir)
        cached = _read(file, size)
        if cached is None or cached.about.stamp != listing.stamp:
            cached = _make(listing, file, size, spec.inverted, f"{spec.name} {split}", track)
            earlier = f"{data_dir.resolve().name}-{stem}" if spec.name == "folder" else stem
            for ending in (".npy", ".json"):  # version 1, which is not read any more
                (cache_dir / f"{earlier}{ending}").unlink(missing_ok=True)
    about = cached.about
    return ImageSet(spec.name, split, cached.images, about.class_names, about.counts, about.mean, about.std)


def _report(listing: Listing, data_dir: Path) -> None:
    if number := len(listing.left_out):
        names = printable(", ".join(listing.left_out[:_NAMED])) + (", …" if number > _NAMED else "")
        _log.warning("%s: %d files are left out, which are no CLASS/IMAGE: %s", data_dir, number, names)


def _newest(cache_dir: Path, stem: str) -> list[Path]:
    return sorted(cache_dir.glob(f"{stem}-*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)


def _read(file: Path, size: tuple[int, int, int]) -> _Cached | None:
    """What :func:`_make` wrote; None if it is not there, or is not whole."""
    try:
        with file.open("rb") as handle:
            shape, start = _read_header(handle)
            end = start + int(np.prod(shape, dtype=np.int64))
            length = os.fstat(handle.fileno()).st_size
            if len(shape) != 4 or shape[1:] != size or not start < end <= length - _LENGTH:
                return None
            handle.seek(end)
            text = handle.read()
            if int.from_bytes(text[-_LENGTH:], "little") != len(text) - _LENGTH:
                return None
            raw: dict[str, Any] = json.loads(text[:-_LENGTH])
            about = _About(**cast(Any, {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}))
            check_types(about)
            # Copy on write: PyTorch wants writable memory, and nothing writes.
            images = np.memmap(handle, np.uint8, "c", start, shape)
    except Exception:  # of a damaged header, NumPy raises what Python's tokenizer and parser do
        return None
    whole = sum(about.counts) == shape[0] and len(about.counts) == len(about.class_names) and min(about.counts) > 0
    whole = whole and len(about.mean) == len(about.std) == shape[1] and min(about.std) >= 0
    return _Cached(about, images) if whole and about.version == VERSION else None


def _read_header(handle: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Shape of the uint8 array in a .npy file, and where it begins."""
    np.lib.format.read_magic(handle)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
    if fortran or dtype != np.uint8 or min(shape, default=0) < 1:
        raise ValueError("another array")
    return shape, handle.tell()


def _make(
    listing: Listing, file: Path, size: tuple[int, int, int], inverted: bool, description: str, track: Track | None
) -> _Cached:
    """Decode all images into a cache file, which is replaced atomically; its images and what it says of them are one
    file, so that whoever reads it gets images and classes of one listing.
    """
    counts = tuple(len(sources) for sources in listing.classes.values())
    shape = (sum(counts), *size)

    def write(path: Path) -> None:
        with path.open("wb") as handle:
            header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8))}
            np.lib.format.write_array_header_1_0(handle, header)
            arrays = _decode(listing, size, inverted)
            # Written, not mapped: a full disk is an error then, and not the end of the process.
            for array in arrays if track is None else track(arrays, shape[0], description):
                handle.write(array.tobytes())
            handle.flush()
            moments = _moments(np.load(path, mmap_mode="r"))
            text = json.dumps(
                asdict(_About(VERSION, listing.stamp, tuple(listing.classes), counts, **moments))
            ).encode()
            handle.write(text + len(text).to_bytes(_LENGTH, "little"))

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent)
        needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(file.parent).free
        if needed > free:
            raise DataError(
                f"{file.parent} has {free / 2**20:,.0f} MB free, the decoded images take {needed / 2**20:,.0f} MB; "
                "name another --cache_dir"
            )
        write_atomically(file, write)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{file.parent} cannot be written: {reason}; name another --cache_dir") from error
    cached = _read(file, size)
    if cached is None:
        raise DataError(f"{file} does not hold what was written: something else writes there; name another --cache_dir")
    return cached


def _decode(listing: Listing, size: tuple[int, int, int], inverted: bool) -> Iterator[npt.NDArray[np.uint8]]:
    """All images, class after class."""
    sources = [source for images in listing.classes.values() for source in images]
    # Pillow decodes without holding the interpreter but opens files with it: more threads wait for each other.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda source: to_array(source(), size[1], size[0], inverted), sources)


def to_array(image: Image.Image, image_size: int, channels: int, inverted: bool = False) -> npt.NDArray[np.uint8]:
    """uint8 [C, image_size, image_size]: grey or RGB, cut to the middle square, resized with antialiasing."""
    image = image.convert("L" if channels == 1 else "RGB")
    if inverted:
        image = ImageOps.invert(image)
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.moveaxis(array, -1, 0)


def _moments(images: npt.NDArray[np.uint8]) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of each channel in [0, 1], from a histogram of the bytes: exact, and one pass."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 1024):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(images[start : start + 1024, channel].ravel(), minlength=256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
    return {"mean": tuple(mean.tolist()), "std": tuple(std.tolist())}
