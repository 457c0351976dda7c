"""Listings: the images of one split by class, not yet decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from PIL import Image

from srwm_agents.fewshot.data.archives import Archive, DataError, Member
from srwm_agents.fewshot.data.pictures import image_endings, open_image

ImageSource = Callable[[], Image.Image]
"""Decodes one image."""


@dataclass(frozen=True)
class Listing:
    """The images of one split, by class."""

    classes: dict[str, list[ImageSource]]
    """Class name -> its images, both in a fixed order."""
    stamp: str
    """Hash that changes with the files' contents."""
    left_out: tuple[str, ...] = ()
    """Files that may have been meant as images, but are none of a known format or lie elsewhere than images should."""


class Found(NamedTuple):
    """The image files below some path, and the files there that are left out."""

    classes: dict[str, list[str]]
    """Path of a folder -> sorted paths of its files."""
    left_out: list[str]


def list_files(
    archive: Archive, members: Mapping[str, Member], classes: Mapping[str, Sequence[str]], left_out: Iterable[str] = ()
) -> Listing:
    """Make a listing; ``members``: from ``archive.members()``, ``classes``: each class's file paths.

    Raises:
        DataError: a file that cannot be read, as is known without reading it.
    """
    digest = hashlib.sha256()
    for name, files in classes.items():
        for file in files:
            if problem := members[file].problem:
                raise DataError(f"{archive.name}: {file} {problem}")
            # A name is bytes to the file system, of any encoding.
            digest.update(f"{name}\0{file}\0{members[file].stamp}\n".encode(errors="surrogatepass"))
    return Listing(
        {name: [partial(open_image, archive, file) for file in files] for name, files in classes.items()},
        digest.hexdigest(),
        tuple(left_out),
    )


def by_folder(members: Iterable[str], prefix: str, depth: int = 1) -> Found:
    """Find the image files ``depth`` folders below ``prefix``, by folder.

    Left out are files in those folders that have no image's ending, and images elsewhere below ``prefix``.
    """
    found = Found({}, [])
    endings = image_endings()
    for member in sorted(members):
        if not member.startswith(prefix):
            continue
        folder, _, file = member.removeprefix(prefix).rpartition("/")
        is_image, in_place = file.lower().endswith(endings), folder.count("/") == depth - 1 and folder
        if is_image and in_place:
            found.classes.setdefault(folder, []).append(member)
        elif is_image or in_place:
            found.left_out.append(member)
    return found
