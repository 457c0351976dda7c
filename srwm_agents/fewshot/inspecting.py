"""An episode of a few-shot classifier, recorded example by example for an inspection."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from srwm_agents.display import make_console, tracker
from srwm_agents.fewshot.building import Images
from srwm_agents.fewshot.classifier import FewShotClassifier, check_finite
from srwm_agents.fewshot.tasks import FewShotTask, Shape
from srwm_agents.inspection import Recorder, Recording
from srwm_agents.inspection.recording import Tile

SPLITS = {"train": "train", "validation": "val", "test": "test"}


def record_episode(classifier: FewShotClassifier, args: argparse.Namespace, name: str) -> Recording:
    """Show one episode's examples one after the other, and ask the same queries after each.

    The episode is the first that ``fewshot eval --seed S --batch_size 1`` draws, with a query a class.

    Args:
        classifier: in evaluation mode.
        args: examples (a class; None: as trained), splits, seed, dataset, rotations, data_dir, cache_dir.
        name: the classifier's.

    Raises:
        ValueError: images of another format than the classifier's, or too few of them.
        FloatingPointError: the classifier's logits are not finite.
    """
    config = classifier.config
    channels, height, size = config.image_shape
    if height != size:
        raise ValueError(f"{name} sees images of {height}×{size}, data sets give squares")
    dataset = args.dataset or config.task.get("dataset", "glyphs").split(",")[0]
    rotated = config.task.get("rotations", "") if args.rotations is None else args.rotations
    split = SPLITS[args.splits or "validation"]
    data_dir: Path = args.data_dir
    images = Images.load((dataset,), split, data_dir, args.cache_dir, size, channels, tracker(make_console()))
    (bank,) = images.banks(classifier.device, rotated.split(","))
    shots = args.examples or config.task.get("shots", 1)
    task = FewShotTask(bank, Shape(config.ways, shots, config.ways))
    generator = torch.Generator(classifier.device).manual_seed(args.seed)
    ((examples, queries),) = task.draw(1, generator)
    recorder = Recorder(
        classifier,
        names=[f"{config.ways} classes of {dataset}, {shots} example{'s' if shots > 1 else ''} each"],
        max_steps=examples.labels.shape[1],
        title=f"Inside {name}",
        frames_per_second=2,
    )
    recording = recorder.recording
    recording.about = (
        f"Core {config.core}; {split} classes, episode of seed {args.seed}; labels are "
        f"{config.labels}. Each query is asked after every example, and changes nothing."
    )
    recording.axis, recording.probabilities_title = "example", "probability of each query's right label"
    answers = []
    memory = classifier.blank(1)
    order = queries.labels[0].argsort()
    labels, pictures = queries.labels[0, order], queries.images[0, order]
    with torch.no_grad(), recorder:
        shown, asked = classifier.embed(examples.images), classifier.embed(pictures[None])
        for t in range(examples.labels.shape[1]):
            _, memory = classifier.read(shown[:, t : t + 1], examples.labels[:, t : t + 1], memory)
            logits = recorder.unheard(lambda memory=memory: classifier.answer(asked, memory))
            check_finite(logits.isfinite().all())
            probabilities = logits[0].softmax(-1)
            right = probabilities.gather(1, labels[:, None])
            recorder.step([0.0], [False], probabilities=right.T, screens=_pictures(examples.images[0, t : t + 1]))
            answers.append(probabilities.cpu().numpy())
    recording.action_names = [f"label {label}" for label in labels.tolist()]
    recording.answers = np.stack(answers)
    recording.examples = _tiles(examples.images[0], examples.labels[0])
    recording.queries = _tiles(pictures, labels)
    return recording


def _pictures(images: torch.Tensor) -> np.ndarray:
    """uint8 [N, C, H, W] -> [N, H, W, 3]."""
    colour = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return colour.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def _tiles(images: torch.Tensor, labels: torch.Tensor) -> list[Tile]:
    return [Tile(picture, label) for picture, label in zip(_pictures(images), labels.tolist(), strict=True)]
