"""Mutated images, zips, tars and caches: read, or refused in one line, soon and with little memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srwm_agents.fewshot.data import DataError, ImageSet, load_images

SIDE = 24


def load(data_dir: Path, cache: Path, name: str = "folder") -> ImageSet:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged notes
        images = load_images(name, "train", data_dir, cache, image_size=SIDE, channels=3)
    assert images.images.shape == (sum(images.counts), 3, SIDE, SIDE)
    assert np.isfinite([*images.mean, *images.std]).all()
    return images


def image(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    made = Image.fromarray(pixels)
    if kind in ("GIF", "PNG-P"):
        made = made.convert("P")
    elif kind == "PNG-16":
        made = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif kind in ("XBM", "MSP"):
        made = made.convert("1")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    made.save(buffer, kind.split("-")[0], **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    return buffer.getvalue()


KINDS = (
    *("PNG", "PNG-P", "PNG-16", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO", "JPEG2000", "PCX", "SGI"),
    *("DDS", "IM", "XBM", "DIB", "ICNS", "QOI", "AVIF"),
)


def test_mutated_images(tmp_path, mutations, mutate) -> None:
    Image.init()
    whole = {kind: image(kind) for kind in KINDS if kind.split("-")[0] in Image.SAVE}
    folder = tmp_path / "images"
    for c in range(2):
        (folder / f"train/class{c}").mkdir(parents=True)
        (folder / f"train/class{c}/0.png").write_bytes(whole["PNG"])
    loaded = 0
    for rng in mutations(250):
        (folder / "train/class1/0.png").write_bytes(mutate(rng, rng.choice(list(whole.values()))))
        with mutations.refused(DataError):
            load(folder, tmp_path / "cache")
            loaded += 1
    assert loaded


def zip_of(files: dict[str, bytes], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_mutated_zips(tmp_path, mutations, mutate) -> None:
    files = {f"mine/class{c}/{i}.png": image("PNG") for c in range(3) for i in range(2)}
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    whole = [zip_of(files, method) for method in methods]
    loaded = 0
    for rng in mutations(150):
        (tmp_path / "mine.zip").write_bytes(mutate(rng, rng.choice(whole)))
        with mutations.refused(DataError):
            load(tmp_path / "mine.zip", tmp_path / "cache")
            loaded += 1
    assert loaded


@pytest.mark.parametrize("packed", [True, False])
def test_mutated_tars(tmp_path, mutations, mutate, packed: bool) -> None:
    """The gzip file, or the tar in it."""
    names = {"coarse": [f"group{i}" for i in range(20)], "fine": [f"class{i}" for i in range(100)]}
    files = {f"{kind}_label_names.txt": "\n".join(lines).encode() for kind, lines in names.items()}
    records = b"".join(bytes([i % 20, i % 100]) + bytes(3072) for i in range(100))
    files |= {"train.bin": records, "test.bin": records}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-100-binary/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    loaded = 0
    for rng in mutations(60):
        whole = tar.getvalue()
        # Most of it is pixels: mutate what stands before them, too.
        content = (
            mutate(rng, gzip.compress(whole, 1))
            if packed
            else gzip.compress(mutate(rng, whole[:5000]) + whole[5000:], 1)
        )
        (tmp_path / "cifar-100-binary.tar.gz").write_bytes(content)
        with mutations.refused(DataError):
            load(tmp_path, tmp_path / "cache", "cifar-fs")
            loaded += 1
    assert loaded


def test_mutated_caches(tmp_path, mutations, mutate) -> None:
    folder = tmp_path / "images"
    for c in range(3):
        (folder / f"train/class{c}").mkdir(parents=True)
        (folder / f"train/class{c}/0.png").write_bytes(image("PNG"))
    load(folder, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    for rng in mutations(150):
        head, tail = whole[:200], whole[-500:]
        file.write_bytes(rng.choice((mutate(rng, head) + whole[200:], whole[:-500] + mutate(rng, tail))))
        with mutations.refused():  # there is always what it was made from
            load(folder, tmp_path / "cache")
