"""Data set specifications: source, licence, image format, and the function that lists a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from srwm_agents.fewshot.data import cifar, folder, mini_imagenet, omniglot
from srwm_agents.fewshot.data.listing import Listing

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DatasetSpec:
    """A data set on the user's disk."""

    name: str
    list_split: Callable[[Path, str], Listing]
    """(data_dir, split) -> images; :class:`DataError` if there are none."""
    image_size: int
    channels: int
    what: str
    """For the user: what to get, and in which layouts it is read."""
    where: str
    """For the user: where to get it."""
    licence: str
    cite: str
    inverted: bool = False
    """Whether images are inverted when decoded, so that strokes are bright."""


DATASETS: dict[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "omniglot",
            omniglot.list_split,
            28,
            1,
            "omniglot*.zip or the folder omniglot-py, with images_background/, images_evaluation/ (the two official "
            "archives, unpacked) and splits/vinyals/{train,val,test}.txt, a line ALPHABET/characterNN for each class",
            "images: https://github.com/brendenlake/omniglot (python/images_background.zip, images_evaluation.zip); "
            "split: https://github.com/jakesnell/prototypical-networks (data/omniglot/splits/vinyals)",
            "MIT, (c) 2015 Brenden Lake",
            "Lake, Salakhutdinov & Tenenbaum, Science 350:1332, 2015; split of Vinyals et al., NeurIPS 2016",
            inverted=True,
        ),
        DatasetSpec(
            "mini-imagenet",
            mini_imagenet.list_split,
            84,
            3,
            "mini*imagenet*.zip or the folder mini-imagenet, with {train,val,test}/WNID/*.jpg",
            "class lists and file names: https://github.com/twitter-research/meta-learning-lstm (data/miniImagenet); "
            "images: ILSVRC 2012 from https://image-net.org, on request",
            "ImageNet's terms: non-commercial research and education; copyright stays with the images' owners",
            "Vinyals et al., NeurIPS 2016; split of Ravi & Larochelle, ICLR 2017",
        ),
        DatasetSpec(
            "cifar-fs",
            cifar.list_cifar_fs,
            32,
            3,
            cifar.WHAT,
            cifar.WHERE,
            cifar.LICENCE,
            "Krizhevsky, 2009; split of Bertinetto et al., ICLR 2019",
        ),
        DatasetSpec(
            "fc100",
            cifar.list_fc100,
            32,
            3,
            cifar.WHAT,
            cifar.WHERE,
            cifar.LICENCE,
            "Krizhevsky, 2009; split of Oreshkin et al., NeurIPS 2018",
        ),
        DatasetSpec(
            "folder",
            folder.list_split,
            84,
            3,
            "your own images: a folder or zip with {train,val,test}/CLASS/IMAGE, or with CLASS/IMAGE, whose classes "
            "are then split 60/20/20 % in a fixed random order",
            "your disk: --data_dir names the folder or the zip itself",
            "yours",
            "",
        ),
    )
}


def get_spec(name: str) -> DatasetSpec:
    """The specification of a data set; ``ValueError`` for an unknown name, with those allowed."""
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}, allowed: glyphs, {', '.join(DATASETS)}")
    return DATASETS[name]
