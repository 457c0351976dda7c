"""Image bank: all images of a split on one device, from which batches of episodes are sampled."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from srwm_agents.fewshot.augmentation import Augmentation
from srwm_agents.fewshot.data import DataError, ImageSet


class Draw(NamedTuple):
    """A batch of labelled images for B episodes of N classes each."""

    images: Tensor
    """uint8 [B, S, C, H, W]."""
    labels: Tensor
    """int64 [B, S]: the episode's own label of each image, 0 to N - 1."""
    identities: Tensor
    """int64 [B, S]: the data set's class of each image."""


_SHARES = (
    " (of CLASS/IMAGE 60 % of the classes are for train, 20 % for val and 20 % for test; {train,val,test}/CLASS/IMAGE "
    "is split as you say)"
)


class ImageBank:
    """uint8 images on a device, ordered by class; episodes are sampled there, without a host sync."""

    def __init__(self, images: ImageSet, device: torch.device | str = "cpu", rotations: bool = False) -> None:
        """Copy the images to ``device``; on the CPU a memory-mapped set is used without a copy.

        ``rotations`` adds each class rotated by 90, 180 and 270 degrees as three more classes.
        """
        pixels = torch.from_numpy(images.images).to(device)
        counts = torch.tensor(images.counts)
        if rotations:
            pixels = torch.cat([pixels.rot90(turns, (2, 3)) for turns in range(4)])
            counts = counts.repeat(4)
        self.name, self.split = images.name, images.split
        self.images = pixels
        self.counts = counts.to(device)
        self.starts = (counts.cumsum(0) - counts).to(device)
        self.num_classes = len(counts)
        self.fewest, self._most = int(counts.min()), int(counts.max())

    @property
    def device(self) -> torch.device:
        return self.images.device

    def check(self, ways: int, per_class: int) -> None:
        """Raise :class:`DataError` unless there are enough classes, and enough images in each."""
        if self.num_classes < ways:
            raise DataError(
                f"{self.name} has {self.num_classes} classes here, {ways}-way episodes need {ways}; here is the split "
                f"{self.split!r}{_SHARES if self.name == 'folder' else ''}: --ways {max(2, self.num_classes)} in "
                "training, or more classes"
            )
        if self.fewest < per_class:
            raise DataError(f"{self.name} has a class of {self.fewest} images, these episodes need {per_class} of each")

    def choose(self, batch: int, ways: int, per_class: int, generator: torch.Generator | None = None) -> Chosen:
        """Sample ``ways`` classes for each episode, in random order, and ``per_class`` different images of each."""
        keys = torch.rand(batch, self.num_classes, device=self.device, generator=generator)
        classes = keys.topk(ways, dim=1).indices
        keys = torch.rand(batch, ways, self._most, device=self.device, generator=generator)
        absent = torch.arange(self._most, device=self.device) >= self.counts[classes][..., None]
        within = keys.masked_fill(absent, -1.0).topk(per_class, dim=2).indices
        return Chosen(classes, self.starts[classes][..., None] + within)

    def fetch(
        self,
        chosen: Chosen,
        labels: Tensor,
        nth: Tensor,
        augmentation: Augmentation | None = None,
        generator: torch.Generator | None = None,
    ) -> Draw:
        """Gather images: position (b, s) gets image number ``nth`` [B, S] of the class with label ``labels`` [B, S]."""
        rows = torch.arange(len(labels), device=self.device)[:, None]
        index = chosen.images[rows, labels, nth]
        images = self.images[index]
        if augmentation is not None:
            images = augmentation(images.flatten(0, 1), generator).unflatten(0, index.shape)
        return Draw(images, labels, chosen.classes[rows, labels])


class Chosen(NamedTuple):
    """Classes and images of B episodes."""

    classes: Tensor
    """[B, N]: the data set's class of each label."""
    images: Tensor
    """[B, N, M]: indices into the bank of M different images of each class."""


def shuffled_labels(
    batch: int, ways: int, times: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Labels [B, ways · times], each ``times`` times, in random order."""
    order = torch.rand(batch, ways * times, device=device, generator=generator).argsort(dim=1)
    return order % ways


def occurrence(labels: Tensor, ways: int) -> Tensor:
    """[B, S]: number of earlier positions in the row with the same label."""
    seen = torch.nn.functional.one_hot(labels, ways).cumsum(dim=1)
    return seen.gather(2, labels[..., None]).squeeze(2) - 1
