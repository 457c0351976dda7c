"""``fewshot data prepare``: decode data sets, and print how to obtain missing ones."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from srwm_agents.command_line import fail
from srwm_agents.display import tracker
from srwm_agents.fewshot.data import DATASETS, SPLITS, AbsentError, DataError, load_images
from srwm_agents.fewshot.data.specs import DatasetSpec

_PLAIN: Any = {"highlight": False, "soft_wrap": True, "markup": False}


def prepare(args: argparse.Namespace, console: Console) -> int:
    """Run the command; returns status 1 if images are damaged or cannot be used or kept, or if a data set that was
    requested by name has none of the splits here.
    """
    # "folder" is used by name only: any data directory contains folders.
    names = [name for name in DATASETS if name != "folder"] if args.dataset is None else _list(args.dataset)
    splits = _list(args.split)
    for what, given, allowed in (("data set", names, tuple(DATASETS)), ("split", splits, SPLITS)):
        for name in given:
            if name not in allowed:
                raise ValueError(f"unknown {what} {name!r}, allowed: {', '.join(allowed)}")
    where = (args.data_dir, args.cache_dir, args.image_size, args.channels, tracker(console, "images"))
    status = 0
    for name in names:
        reasons: list[str] = []
        for split in splits:
            try:
                images = load_images(name, split, *where)
            except AbsentError as error:
                reasons.append(str(error))
                continue
            except DataError as error:
                status = fail(f"{name} {split}: {error}", "fewshot")
                continue
            shape = "×".join(map(str, images.images.shape[1:]))
            console.print(
                f"{name} {split}: {len(images.counts)} classes, {len(images.images):,} images of {shape}", **_PLAIN
            )
        for reason in dict.fromkeys(reasons):
            console.print(f"{name}: {reason}", **_PLAIN)
        if len(reasons) == len(splits):
            _explain(DATASETS[name], console)
            status |= args.dataset is not None
    return int(status)


def _list(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _explain(spec: DatasetSpec, console: Console) -> None:
    for word, text in (("get", spec.what), ("from", spec.where), ("licence", spec.licence), ("cite", spec.cite)):
        if text:
            console.print(f"  {word + ':':9} {text}", **_PLAIN)
