"""mini-ImageNet: 100 classes of ImageNet, 600 images each, 84×84."""

from __future__ import annotations

from pathlib import Path

from srwm_agents.fewshot.data.archives import AbsentError, find_archives
from srwm_agents.fewshot.data.listing import Listing, by_folder, list_files

FOLDER = "mini-imagenet"


def list_split(data_dir: Path, split: str) -> Listing:
    """List the images of one split: the folders ``SPLIT/WNID``, sorted."""
    looked = []
    for archive, root in find_archives(data_dir, FOLDER, ("mini*imagenet*.zip",)):
        members = archive.members()
        looked.append(f"{archive.name} ({root}{split}/)")
        found = by_folder(members, f"{root}{split}/")
        if found.classes:
            return list_files(archive, members, *found)
    if looked:
        raise AbsentError(f"no {split} split of mini-imagenet: not in {', '.join(looked)}")
    raise AbsentError(f"no mini-imagenet in {data_dir}: neither a folder {FOLDER} nor a file mini*imagenet*.zip")
