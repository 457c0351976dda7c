"""A user's own images: one folder a class."""

from __future__ import annotations

import random
from pathlib import Path

from srwm_agents.fewshot.data.archives import Archive, DataError, Folder, Zip
from srwm_agents.fewshot.data.listing import Listing, by_folder, list_files

SPLITS = ("train", "val", "test")
SHARES = (0.6, 0.2)
"""Shares of the classes for train and val; the rest is for test."""


def list_split(data_dir: Path, split: str) -> Listing:
    """List the images of one split.

    With ``SPLIT/CLASS/IMAGE`` those in the split's folder; with ``CLASS/IMAGE`` a share of the classes, in a fixed
    random order. A zip may contain either, or one folder with either.
    """
    archive = _open(data_dir)
    members = archive.members()
    tops = {member.split("/")[0] for member in members if "/" in member}
    wrapped = isinstance(archive, Zip) and len(tops) == 1 and not tops & {*SPLITS} and not by_folder(members, "")
    root = f"{tops.pop()}/" if wrapped else ""
    if any(by_folder(members, f"{root}{name}/") for name in SPLITS):
        classes = by_folder(members, f"{root}{split}/")
    else:
        everything = by_folder(members, root)
        if not everything:
            raise DataError(f"no images in {data_dir}: expected CLASS/IMAGE or {{train,val,test}}/CLASS/IMAGE")
        names = sorted(everything)
        random.Random(0).shuffle(names)
        first, second = (round(sum(SHARES[: i + 1]) * len(names)) for i in range(2))
        chosen = {"train": names[:first], "val": names[first:second], "test": names[second:]}[split]
        classes = {name: everything[name] for name in sorted(chosen)}
    if not classes:
        raise DataError(f"no {split} classes in {data_dir}: expected {split}/CLASS/IMAGE, or more classes to split")
    return list_files(archive, members, classes)


def _open(data_dir: Path) -> Archive:
    if data_dir.is_dir():
        return Folder(data_dir)
    if not data_dir.exists():
        raise DataError(f"--data_dir is {data_dir}, which does not exist")
    return Zip(data_dir)
