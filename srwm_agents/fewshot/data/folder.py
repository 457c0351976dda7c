"""A user's own images: one folder a class."""

from __future__ import annotations

import random
from pathlib import Path

from srwm_agents.fewshot.data.archives import AbsentError, Archive, DataError, Folder, Zip
from srwm_agents.fewshot.data.listing import Found, Listing, by_folder, list_files
from srwm_agents.fewshot.data.pictures import image_endings

SPLITS = ("train", "val", "test")
SHARES = (0.6, 0.2)
"""Shares of the classes for train and val; the rest is for test."""


def list_split(data_dir: Path, split: str) -> Listing:
    """List the images of one split.

    With ``SPLIT/CLASS/IMAGE`` those in the split's folder; with ``CLASS/IMAGE`` a share of the classes, in a fixed
    random order. A zip may contain either, or one folder with either.

    Raises:
        AbsentError: no images here, or none of this split; DataError: a class of whose files none can be used.
    """
    archive = _open(data_dir)
    members = archive.members()
    tops = {member.split("/")[0] for member in members if "/" in member}
    wrapped = (
        isinstance(archive, Zip) and len(tops) == 1 and not tops & {*SPLITS} and not by_folder(members, "").classes
    )
    root = f"{tops.pop()}/" if wrapped else ""
    splits = {name: by_folder(members, f"{root}{name}/") for name in SPLITS}
    if any(found.classes for found in splits.values()):
        found = splits[split]
        others = tuple(f"{root}{name}/" for name in SPLITS)
        elsewhere = [name for name in members if name.lower().endswith(image_endings()) and not name.startswith(others)]
        classes, left_out = found.classes, found.left_out + elsewhere
    else:
        found = by_folder(members, root)
        if not found.classes:
            some = f", but {found.left_out[0]}" if found.left_out else ""
            raise AbsentError(
                f"no images in {data_dir}: expected CLASS/IMAGE or {{train,val,test}}/CLASS/IMAGE{some}; "
                f"endings of images: {' '.join(image_endings())}"
            )
        names = sorted(found.classes)
        random.Random(0).shuffle(names)
        first, second = (round(sum(SHARES[: i + 1]) * len(names)) for i in range(2))
        chosen = {"train": names[:first], "val": names[first:second], "test": names[second:]}[split]
        classes, left_out = {name: found.classes[name] for name in sorted(chosen)}, found.left_out
    _check_classes(archive, found, root if found is not splits[split] else f"{root}{split}/")
    if not classes:
        raise AbsentError(f"no {split} classes in {data_dir}: expected {split}/CLASS/IMAGE, or more classes to split")
    return list_files(archive, members, classes, left_out)


def _check_classes(archive: Archive, found: Found, prefix: str) -> None:
    """DataError if there is a folder that has files and none that can be used: a class would be lost."""
    for file in found.left_out:
        name, slash, _ = file.removeprefix(prefix).partition("/")
        if slash and name not in found.classes:
            raise DataError(
                f"{archive.name}: {prefix}{name} has no CLASS/IMAGE, but {file}; take it out, put a dot before its "
                f"name or convert it; endings of images: {' '.join(image_endings())}"
            )


def _open(data_dir: Path) -> Archive:
    if data_dir.is_dir():
        return Folder(data_dir)
    if not data_dir.exists():
        raise AbsentError(f"--data_dir is {data_dir}, which does not exist")
    return Zip(data_dir)
