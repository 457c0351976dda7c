"""From settings to the things they describe: banks of images, tasks, classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srwm_agents.fewshot.augmentation import Augmentation
from srwm_agents.fewshot.bank import ImageBank
from srwm_agents.fewshot.classifier import ClassifierConfig, FewShotClassifier
from srwm_agents.fewshot.data import DataError, ImageSet, Track, image_format, load_images
from srwm_agents.fewshot.settings import Settings
from srwm_agents.fewshot.tasks import BootstrapTask, FewShotTask, SequentialTask, Shape, Task


@dataclass(frozen=True)
class Images:
    """The image sets of one split, one a data set, all of one format."""

    sets: tuple[ImageSet, ...]

    @classmethod
    def load(
        cls,
        datasets: Sequence[str],
        split: str,
        data_dir: Path,
        cache_dir: Path | None,
        image_size: int | None,
        channels: int | None,
        track: Track | None = None,
    ) -> Images:
        """Load them; size and channels default to the largest among the data sets."""
        formats = [image_format(name) for name in datasets]
        size = max(size for size, _ in formats) if image_size is None else image_size
        colours = max(colours for _, colours in formats) if channels is None else channels
        return cls(tuple(load_images(name, split, data_dir, cache_dir, size, colours, track) for name in datasets))

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel, every data set weighing the same, as it does in training.

        A channel that is the same in all pixels has the deviation 1: it is centred and not divided by zero.

        Raises:
            DataError: every channel is.
        """
        means = torch.tensor([images.mean for images in self.sets], dtype=torch.float64)
        squares = torch.tensor([images.std for images in self.sets], dtype=torch.float64) ** 2 + means**2
        mean = means.mean(0)
        std = (squares.mean(0) - mean**2).clamp_min(0).sqrt()
        flat = std < 1e-6
        if flat.all():
            raise DataError(f"all images of {' and '.join(f'{s.name} {s.split}' for s in self.sets)} are of one colour")
        return tuple(mean.tolist()), tuple(std.masked_fill(flat, 1.0).tolist())

    def banks(self, device: torch.device, rotated: Sequence[str]) -> list[ImageBank]:
        """The images on ``device``, those of the ``rotated`` data sets with their turned classes."""
        return [ImageBank(images, device, images.name in rotated) for images in self.sets]


def training_task(settings: Settings, banks: Sequence[ImageBank]) -> Task:
    """What training draws its episodes from."""
    shape = Shape(settings.ways, settings.shots, settings.queries)
    augmentation = Augmentation(*(getattr(settings, f"augment_{name}") for name in ("shift", "flip", "crop", "colour")))
    if settings.task == "sequential":
        return SequentialTask(banks, shape, augmentation)
    if settings.task == "bootstrap":
        return BootstrapTask(banks[0], shape, settings.future_shots, augmentation)
    return FewShotTask(banks[0], shape, augmentation)


def evaluation_tasks(banks: Sequence[ImageBank], shape: Shape) -> list[Task]:
    """What a classifier is measured on: full length, nothing augmented; two data sets in either order."""
    if len(banks) == 1:
        return [FewShotTask(banks[0], shape)]
    orders = (banks, banks[::-1])
    return [SequentialTask(order, shape, both_orders=False, random_lengths=False) for order in orders]


def make_classifier(settings: Settings, images: Images, record: dict[str, Any]) -> FewShotClassifier:
    """A classifier with fresh weights for these images, on the CPU."""
    mean, std = images.moments()
    names = ("dataset", "task", "shots", "rotations")
    return FewShotClassifier(
        ClassifierConfig(
            core=settings.core,
            core_settings=settings.core_settings,
            ways=settings.ways,
            labels=settings.labels,
            image_shape=tuple(images.sets[0].images.shape[1:]),
            mean=mean,
            std=std,
            encoder=settings.encoder,
            encoder_settings={"channels": settings.encoder_channels, "dropout": settings.vision_dropout},
            label_scale=settings.label_scale,
            task={name: getattr(settings, name) for name in names},
            training=record,
        )
    )
