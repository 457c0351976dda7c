"""Omniglot: handwritten characters of 50 alphabets, 20 drawings each."""

from __future__ import annotations

from pathlib import Path

from srwm_agents.fewshot.data.archives import AbsentError, DataError, find_archives
from srwm_agents.fewshot.data.listing import Listing, by_folder, list_files

FOLDER = "omniglot-py"
HALVES = ("images_background", "images_evaluation")


def list_split(data_dir: Path, split: str) -> Listing:
    """List the images of one split: the classes of ``splits/vinyals/SPLIT.txt``, in its order.

    A line is ``ALPHABET/characterNN``; a rotation after it (``/rot090``), as in some copies of the split, is dropped.
    A class may be in either official archive, since the split mixes them.
    """
    looked = []
    for archive, root in find_archives(data_dir, FOLDER, ("omniglot*.zip",)):
        members = archive.members()
        split_file = f"{root}splits/vinyals/{split}.txt"
        looked.append(f"{archive.name} ({split_file})")
        if split_file not in members:
            continue
        lines = archive.read(split_file).decode(errors="replace").split()
        names = list(dict.fromkeys("/".join(line.split("/")[:2]) for line in lines))
        found: dict[str, list[str]] = {}
        left_out: list[str] = []
        for half in HALVES:
            part = by_folder(members, f"{root}{half}/", depth=2)
            found |= part.classes
            left_out += part.left_out
        if missing := [name for name in names if name not in found]:
            raise DataError(
                f"{archive.name}: no images of class {missing[0]}, which {split_file} lists "
                f"({len(missing)} of {len(names)} classes are missing)"
            )
        return list_files(archive, members, {name: found[name] for name in names}, left_out)
    if looked:
        raise AbsentError(f"no {split} split of omniglot: not in {', '.join(looked)}")
    raise AbsentError(f"no omniglot in {data_dir}: neither a folder {FOLDER} nor a file omniglot*.zip")
