"""All images of a split on one device, and the drawing of episodes from them in bulk."""

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


class ImageBank:
    """uint8 images on a device, class after class. Everything is drawn there, with no word from the host."""

    def __init__(self, images: ImageSet, device: torch.device | str = "cpu", rotations: bool = False) -> None:
        """Copy the images to ``device`` (on the CPU a memory-mapped set is used where it lies).

        ``rotations`` adds each class turned by 90, 180 and 270 degrees as three more classes.
        """
        pixels = torch.from_numpy(images.images).to(device)
        counts = torch.tensor(images.counts)
        if rotations:
            pixels = torch.cat([pixels.rot90(turns, (2, 3)) for turns in range(4)])
            counts = counts.repeat(4)
        self.name = images.name
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
            raise DataError(f"{self.name} has {self.num_classes} classes here, {ways}-way episodes need {ways}")
        if self.fewest < per_class:
            raise DataError(f"{self.name} has a class of {self.fewest} images, these episodes need {per_class} of each")

    def choose(self, batch: int, ways: int, per_class: int, generator: torch.Generator | None = None) -> Chosen:
        """Choose N classes for each episode, in random order, and different images of each: :class:`Chosen`."""
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
        """The ``nth`` [B, S] chosen image of the class with the episode's label ``labels`` [B, S], for each."""
        rows = torch.arange(len(labels), device=self.device)[:, None]
        index = chosen.images[rows, labels, nth]
        images = self.images[index]
        if augmentation is not None:
            images = augmentation(images.flatten(0, 1), generator).unflatten(0, index.shape)
        return Draw(images, labels, chosen.classes[rows, labels])


class Chosen(NamedTuple):
    """Which classes and images B episodes are made of."""

    classes: Tensor
    """[B, N]: the data set's class behind each label."""
    images: Tensor
    """[B, N, M]: M different images of each, as indices into the bank."""


def shuffled_labels(
    batch: int, ways: int, times: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """[B, ways · times]: each label ``times`` times, in random order."""
    order = torch.rand(batch, ways * times, device=device, generator=generator).argsort(dim=1)
    return order % ways


def occurrence(labels: Tensor, ways: int) -> Tensor:
    """[B, S]: how often each position's label has stood before it in its row."""
    seen = torch.nn.functional.one_hot(labels, ways).cumsum(dim=1)
    return seen.gather(2, labels[..., None]).squeeze(2) - 1
