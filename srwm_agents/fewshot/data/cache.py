"""Decoded images in a memory-mapped file, made once for each data set, split and image size."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from srwm_agents.fewshot.data.archives import DataError
from srwm_agents.fewshot.data.listing import ImageSource
from srwm_agents.fewshot.data.specs import DatasetSpec
from srwm_agents.files import remove_leftovers, write_atomically

VERSION = 1
DEFAULT_DATA_DIR = Path("data")
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""Wraps a loop in a progress bar: (items, how many, description)."""


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

    A cache that was made from other files than those in ``data_dir`` is made anew. Where the archives are gone, or
    were never there, the cache is used as it is: it can be copied to another machine.

    Raises:
        DataError: neither archives nor cache; a folder that is not there, unless it is the default one, which nobody
            need have named; a damaged image, by name.
    """
    stem = f"{spec.name}-{image_size}x{image_size}x{channels}-{split}"
    if spec.name == "folder":
        stem = f"{data_dir.resolve().name}-{stem}"
    file, about_file = cache_dir / f"{stem}.npy", cache_dir / f"{stem}.json"
    cached = _read_about(about_file) if file.is_file() else None
    try:
        listing = spec.list_split(data_dir, split)
    except DataError:
        if cached is None or not (data_dir.exists() or data_dir == DEFAULT_DATA_DIR):
            raise
    else:
        if cached is None or cached["stamp"] != listing.stamp:
            images = _decode(listing.classes, file, image_size, channels, spec.inverted, f"{spec.name} {split}", track)
            cached = {
                "version": VERSION,
                "stamp": listing.stamp,
                "class_names": list(listing.classes),
                "counts": [len(sources) for sources in listing.classes.values()],
                **_moments(images),
            }
            write_atomically(about_file, json.dumps(cached, indent=1) + "\n")
    # Copy on write: PyTorch wants writable memory, and nothing writes.
    images = np.load(file, mmap_mode="c", allow_pickle=False)
    return ImageSet(
        spec.name,
        split,
        images,
        tuple(cached["class_names"]),
        tuple(cached["counts"]),
        tuple(cached["mean"]),
        tuple(cached["std"]),
    )


def _read_about(file: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("version") == VERSION else None


def _decode(
    classes: dict[str, list[ImageSource]],
    file: Path,
    image_size: int,
    channels: int,
    inverted: bool,
    description: str,
    track: Track | None,
) -> npt.NDArray[np.uint8]:
    """Decode all images into a memory-mapped file, which is replaced atomically."""
    sources = [source for images in classes.values() for source in images]

    def write(path: Path) -> None:
        shape = (len(sources), channels, image_size, image_size)
        images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        # Pillow decodes without holding the interpreter but opens files with it: more threads wait for each other.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            arrays = pool.map(lambda source: to_array(source(), image_size, channels, inverted), sources)
            for i, array in enumerate(arrays if track is None else track(arrays, len(sources), description)):
                images[i] = array
        images.flush()

    write_atomically(file, write)
    remove_leftovers(file.parent)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def to_array(image: Image.Image, image_size: int, channels: int, inverted: bool = False) -> npt.NDArray[np.uint8]:
    """uint8 [C, image_size, image_size]: grey or RGB, cut to the middle square, resized with antialiasing."""
    image = image.convert("L" if channels == 1 else "RGB")
    if inverted:
        image = ImageOps.invert(image)
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.moveaxis(array, -1, 0)


def _moments(images: npt.NDArray[np.uint8]) -> dict[str, list[float]]:
    """Mean and deviation of each channel in [0, 1], from a histogram of the bytes: exact, and one pass."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256))
    for start in range(0, len(images), 1024):
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(images[start : start + 1024, channel].ravel(), minlength=256)
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ levels
    return {"mean": mean.tolist(), "std": np.sqrt(shares @ levels**2 - mean**2).tolist()}
