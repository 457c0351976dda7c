"""Loading of data sets by name, generated or on disk."""

from __future__ import annotations

from pathlib import Path

from srwm_agents.fewshot.data.cache import ImageSet, Track, default_cache_dir, load_split
from srwm_agents.fewshot.data.glyphs import NAME as GLYPHS
from srwm_agents.fewshot.data.glyphs import make_glyphs
from srwm_agents.fewshot.data.specs import DATASETS, SPLITS, get_spec

MAX_SIDE = 512
"""Of images, in pixels; all of a data set's are kept decoded."""
DATASET_NAMES = (GLYPHS, *DATASETS)


def image_format(name: str) -> tuple[int, int]:
    """Default image size and number of channels of a data set; ValueError for an unknown one."""
    if name == GLYPHS:
        return 28, 1
    spec = get_spec(name)
    return spec.image_size, spec.channels


def load_images(
    name: str,
    split: str,
    data_dir: Path,
    cache_dir: Path | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    track: Track | None = None,
) -> ImageSet:
    """Load all images of one split of a data set, by name.

    ``cache_dir`` defaults to :func:`default_cache_dir`, size and channels to :func:`image_format`.

    Raises:
        ValueError: an unknown data set or split, a size or number of channels out of range.
        DataError: missing, damaged or unusable images.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, allowed: {', '.join(SPLITS)}")
    own_size, own_channels = image_format(name)
    size = own_size if image_size is None else image_size
    colours = own_channels if channels is None else channels
    if not 1 <= size <= MAX_SIDE:
        raise ValueError(f"image_size is {size}, allowed: 1 to {MAX_SIDE}")
    if colours not in (1, 3):
        raise ValueError(f"channels is {colours}, allowed: 1 (grey), 3 (colour)")
    if name == GLYPHS:
        glyphs = make_glyphs(split, size, track=track)
        return glyphs if colours == 1 else glyphs.with_channels(colours)
    return load_split(get_spec(name), split, data_dir, cache_dir or default_cache_dir(), size, colours, track)
