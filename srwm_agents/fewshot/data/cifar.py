"""CIFAR-FS and FC100: two splits of CIFAR-100's classes.

Read from CIFAR-100's *binary* version. The better-known Python version is a pickle, which can run arbitrary code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image

from srwm_agents.fewshot.data.archives import AbsentError, Archive, DataError, find_archives
from srwm_agents.fewshot.data.listing import Listing

FOLDER = "cifar-100-binary"
WHAT = "cifar-100-binary.tar.gz (the binary version, not the Python one), or the folder unpacked from it"
WHERE = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "none stated; its authors ask to cite Krizhevsky, 'Learning Multiple Layers of Features', 2009"

SIDE = 32
_RECORD = 2 + 3 * SIDE * SIDE  # coarse label, fine label, then the red, green and blue plane
_FILES = ("train.bin", "test.bin")

# Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019: 64 + 16 + 20 classes.
CIFAR_FS = {
    "val": (
        *("beaver", "otter", "flatfish", "shark", "lamp", "television", "beetle", "butterfly", "sea", "camel"),
        *("cattle", "crab", "crocodile", "maple_tree", "motorcycle", "tractor"),
    ),
    "test": (
        *("whale", "poppy", "rose", "sweet_pepper", "telephone", "bed", "table", "wardrobe", "leopard", "plain"),
        *("chimpanzee", "fox", "snail", "worm", "baby", "man", "woman", "bicycle", "pickup_truck", "rocket"),
    ),
}
# Oreshkin et al., "TADAM", NeurIPS 2018: 12 + 4 + 4 superclasses, so that no superclass is in two splits.
FC100 = {
    "val": ("large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates", "small_mammals"),
    "test": ("aquatic_mammals", "insects", "medium_mammals", "people"),
}


def list_cifar_fs(data_dir: Path, split: str) -> Listing:
    """The 64 train, 16 val or 20 test classes of CIFAR-FS, 600 images each."""
    return _list(data_dir, lambda _, fine: _split_of(fine, CIFAR_FS) == split)


def list_fc100(data_dir: Path, split: str) -> Listing:
    """The 60 train, 20 val or 20 test classes of FC100, 600 images each."""
    return _list(data_dir, lambda coarse, _: _split_of(coarse, FC100) == split)


def _split_of(name: str, held_out: dict[str, tuple[str, ...]]) -> str:
    return next((split for split, names in held_out.items() if name in names), "train")


def _list(data_dir: Path, wanted: Callable[[str, str], bool]) -> Listing:
    """The classes for which ``wanted(coarse name, fine name)``, in the order of the archive's list of names."""
    for archive, root in find_archives(data_dir, FOLDER, ("cifar-100-binary*.tar.gz", "cifar-100-binary*.zip")):
        coarse = _names(archive, f"{root}coarse_label_names.txt", 20)
        fine = _names(archive, f"{root}fine_label_names.txt", 100)
        found: dict[str, list[Callable[[], Image.Image]]] = {}
        digest = hashlib.sha256()
        for file in _FILES:
            content = _read(archive, f"{root}{file}")
            if not content or len(content) % _RECORD:
                raise DataError(f"{archive.name}: {root}{file} has {len(content)} bytes, no multiple of {_RECORD}")
            digest.update(content)
            for start in range(0, len(content), _RECORD):
                try:
                    names = coarse[content[start]], fine[content[start + 1]]
                except IndexError:
                    raise DataError(f"{archive.name}: {root}{file} is damaged: a label is out of range") from None
                if wanted(*names):
                    pixels = content[start + 2 : start + _RECORD]
                    found.setdefault(names[1], []).append(partial(_image, pixels))
        if found:
            return Listing({name: found[name] for name in fine if name in found}, digest.hexdigest())
    raise AbsentError(f"no CIFAR-100 in {data_dir}: neither a folder {FOLDER} nor a file {FOLDER}.tar.gz")


def _names(archive: Archive, member: str, number: int) -> list[str]:
    names = _read(archive, member).decode(errors="replace").split()
    if len(names) != number:
        raise DataError(f"{archive.name}: {member} lists {len(names)} names, expected {number}")
    return names


def _read(archive: Archive, member: str) -> bytes:
    if member not in archive.members():
        raise DataError(f"{archive.name}: {member} is missing")
    return archive.read(member)


def _image(pixels: bytes) -> Image.Image:
    return Image.merge("RGB", [Image.frombytes("L", (SIDE, SIDE), pixels[c << 10 : (c + 1) << 10]) for c in range(3)])
