"""Decoding of one image file: as viewers show it, upright, 8-bit grey or RGB, within limits."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import threading

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from srwm_agents.fewshot.data.archives import Archive, DataError

MAX_PIXELS = 64_000_000
LARGE_PIXELS = 16_000_000
"""Larger images are decoded one at a time, whatever the number of threads: some formats take 12 bytes a pixel."""
FORMATS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI"),
    *("SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
)
"""Pillow's names of what is read. Not those that it starts programs for (EPS: Ghostscript) or hands on to whatever
another file in them is (IPTC), whatever the file's name says."""

_one_at_a_time = threading.Lock()
_LIGHT, _DARK = 240, 1 / 16
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what undoes it."""


@functools.cache
def image_endings() -> tuple[str, ...]:
    """The endings of files of these formats, with the dot, in small letters."""
    known = Image.registered_extensions()
    return tuple(sorted({".mpo", *(ending for ending, name in known.items() if name in FORMATS)}))


def open_image(archive: Archive, member: str) -> Image.Image:
    """Decode one image file, to mode L or RGB; :class:`DataError` if it is no image, damaged or cannot be used."""
    content = archive.read(member)
    try:
        return _decode(content)
    except _UnusableError as error:
        raise DataError(f"{archive.name}: {member} {error}") from error
    except Exception as error:  # of damaged files, Pillow's decoders raise many kinds
        raise DataError(f"{archive.name}: {member} is no image, or a damaged one: {error}") from error


class _UnusableError(ValueError):
    """An image is none that can be used; the message goes on after the file's name."""


def _decode(content: bytes) -> Image.Image:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]  # older versions of Pillow have fewer
    if content.startswith((b"\0\0\1\0", b"icns")):  # icons hold PNGs, which Pillow may decode when it opens them
        for size in re.findall(rb"IHDR(.{8})", content, re.DOTALL):
            _check_size(int.from_bytes(size[:4], "big"), int.from_bytes(size[4:], "big"))
    try:
        image = Image.open(io.BytesIO(content), formats=formats)
    except Image.DecompressionBombError as error:
        raise _UnusableError(f"has far more pixels than {MAX_PIXELS:,}, which are allowed") from error
    except UnidentifiedImageError:
        raise _UnusableError(f"is no image, or a damaged one, of: {', '.join(formats)}") from None
    _check_size(image.width, image.height)
    with _one_at_a_time if image.width * image.height > LARGE_PIXELS else contextlib.nullcontext():
        image.load()
        turned = _UPRIGHT.get(_orientation(image))
        image = _in_bytes(image)
        return image if turned is None else image.transpose(turned)


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _UnusableError(f"has {width}×{height} pixels, allowed: {MAX_PIXELS:,} in all")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # viewers show an image whose notes are damaged
        return 1


def _in_bytes(image: Image.Image) -> Image.Image:
    """In mode L or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _scaled(np.asarray(image), 65535)
    if image.mode == "F":
        return _scaled(np.asarray(image), 1)
    if image.mode.startswith("I"):
        raise _UnusableError("has 32-bit or signed whole numbers as pixels, allowed: 8 or 16 bits, or floats in 0 to 1")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return _on_ground(image.convert("RGBA"))
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(pixels: npt.NDArray, white: int) -> Image.Image:
    """Grey numbers from 0 to ``white`` in bytes."""
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= white:  # also if they are NaN
        raise _UnusableError(f"has pixels from {low:g} to {high:g}, allowed: 0 to {white}")
    if 0 < high < white * _DARK:
        raise _UnusableError(
            f"has pixels of {high:g} at most, where {white} is white: it would be all but black; scale it"
        )
    return Image.fromarray(np.rint(pixels.astype(np.float64) * (255 / white)).astype(np.uint8))


def _on_ground(image: Image.Image) -> Image.Image:
    """An image with transparency on white, as viewers show it; on black if all that can be seen of it is white."""
    pixels = np.asarray(image)
    seen = pixels[pixels[..., 3] > 0, :3]
    light = seen.size and seen.min() >= _LIGHT and pixels[..., 3].min() < 255
    ground = Image.new("RGBA", image.size, "black" if light else "white")
    return Image.alpha_composite(ground, image).convert("RGB")
