"""Listings: the images of one split by class, not yet decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image

from srwm_agents.fewshot.data.archives import Archive, open_image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")

ImageSource = Callable[[], Image.Image]
"""Decodes one image."""


@dataclass(frozen=True)
class Listing:
    """The images of one split, by class."""

    classes: dict[str, list[ImageSource]]
    """Class name -> its images, both in a fixed order."""
    stamp: str
    """Hash that changes with the files' contents."""


def list_files(archive: Archive, members: Mapping[str, str], classes: Mapping[str, Sequence[str]]) -> Listing:
    """Make a listing; ``members``: from ``archive.members()``, ``classes``: each class's file paths."""
    digest = hashlib.sha256()
    for name, files in classes.items():
        for file in files:
            digest.update(f"{name}\0{file}\0{members[file]}\n".encode())
    return Listing(
        {name: [partial(open_image, archive, file) for file in files] for name, files in classes.items()},
        digest.hexdigest(),
    )


def by_folder(members: Iterable[str], prefix: str, depth: int = 1) -> dict[str, list[str]]:
    """Group the image files ``depth`` folders below ``prefix`` by folder: path of the folder -> sorted file paths.

    Hidden files and files that are no images are left out.
    """
    classes: dict[str, list[str]] = {}
    for member in sorted(members):
        folder, _, file = member.removeprefix(prefix).rpartition("/")
        is_image = file.lower().endswith(IMAGE_ENDINGS) and not file.startswith(".")
        if member.startswith(prefix) and is_image and folder.count("/") == depth - 1 and folder:
            classes.setdefault(folder, []).append(member)
    return classes
