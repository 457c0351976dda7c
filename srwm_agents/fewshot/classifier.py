"""The few-shot classifier: an encoder, a recurrent core that is told labels, and a linear read-out."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srwm_agents.cores import make_core
from srwm_agents.encoders.conv4 import conv4
from srwm_agents.encoders.image import output_size
from srwm_agents.encoders.resnet12 import resnet12
from srwm_agents.portable import config_from_json, read_portable, write_portable
from srwm_agents.settings import check_types

KIND = "few_shot_classifier"
ENCODERS = {"conv4": conv4, "resnet12": resnet12}
LABELS = ("synchronous", "delayed")
IMAGES_AT_ONCE = 512
"""In evaluation; 84×84 images take up to 2 MB each in the first layers."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that :class:`FewShotClassifier` is made from, and where it comes from; what ``config.json`` holds."""

    core: str
    """Name of the core, a key of ``srwm_agents.cores.CORES``."""
    core_settings: dict[str, Any]
    """Keyword arguments of ``make_core`` except input_size."""
    ways: int = 5
    """N, the number of labels."""
    labels: str = "synchronous"
    """"synchronous": an example comes with its label; "delayed": with the label of the example before it."""
    image_shape: tuple[int, ...] = (1, 28, 28)
    """(C, H, W)."""
    mean: tuple[float, ...] = (0.0,)
    """Of each channel, in units of 255, subtracted first."""
    std: tuple[float, ...] = (1.0,)
    """Of each channel, divided by next."""
    encoder: str = "conv4"
    """Name of the encoder, a key of ``ENCODERS``."""
    encoder_settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the encoder except in_channels."""
    label_scale: float | None = 1.0
    """Factor on the label's one-hot code; None: a fifth of the square root of the embedding's width."""
    task: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: data sets, task, shots, …"""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained, for the record: experiment, steps, …"""

    def __post_init__(self) -> None:
        check_types(self)
        task = _Task(**{key: value for key, value in self.task.items() if key in _RECORDED})
        check_types(task)
        if task.shots < 1:
            raise ValueError(f"shots is {task.shots}, expected at least 1")
        if self.encoder not in ENCODERS:
            raise ValueError(f"unknown encoder {self.encoder!r}, allowed: {', '.join(ENCODERS)}")
        if self.labels not in LABELS:
            raise ValueError(f"labels is {self.labels!r}, allowed: {', '.join(LABELS)}")
        if self.ways < 2:
            raise ValueError(f"ways is {self.ways}, expected at least 2")
        if self.label_scale is not None and self.label_scale <= 0:
            raise ValueError(f"label_scale is {self.label_scale}, expected more than 0")
        if len(self.image_shape) != 3 or self.image_shape[0] < 1 or min(self.image_shape[1:]) < 16:
            raise ValueError(f"image_shape is {self.image_shape}, expected (C, H, W) with H and W of at least 16")
        if self.std and min(self.std) <= 0:
            raise ValueError(f"std is {self.std}, expected more than 0: images are divided by it")


@dataclass(frozen=True)
class _Task:
    """The entries of ``ClassifierConfig.task`` that this package reads, and their types."""

    dataset: str = ""
    rotations: str = ""
    shots: int = 1


_RECORDED = {entry.name for entry in fields(_Task)}


class Memory(NamedTuple):
    """What a classifier knows of B episodes."""

    state: Tensor
    """[B, state_size], the core's."""
    label: Tensor
    """int64 [B], the label that the next image comes with: N, 'unknown', unless labels are delayed."""


class FewShotClassifier(nn.Module):
    """Learns N new classes from labelled images, in its recurrent state alone.

    The core's input is the image's embedding joined to a one-hot label of N + 1 entries, the last meaning 'unknown':
    so a query is told apart from an example of any class. With synchronous labels an example comes with its own
    label and a query with 'unknown'; with delayed labels each image comes with the label of the image before it, the
    very first with 'unknown' (Hochreiter et al., ICANN 2001; Irie et al., ICML 2022, section 4.1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        """Make a classifier with fresh weights; ValueError for a setting out of range."""
        super().__init__()
        self.config = config
        channels = config.image_shape[0]
        for name in ("mean", "std"):
            values = torch.tensor(getattr(config, name)) * 255
            if len(values) != channels:
                raise ValueError(f"{name} has {len(values)} entries, images have {channels} channels")
            self.register_buffer(name, values.view(-1, 1, 1), persistent=False)
        self.encoder = ENCODERS[config.encoder](channels, **config.encoder_settings)
        self.embedding_size = output_size(self.encoder.eval(), config.image_shape)
        self.encoder.train()
        # Deviation: embeddings are centred before the memory sees them. What all images have in common drowns what
        # tells them apart, and training then stays at chance for a long time.
        self.norm = nn.BatchNorm1d(self.embedding_size)
        # Deviation: by default in training, the label grows with the embedding. As one entry among hundreds of the same
        # size it is hardly heard, and training stays at chance for long; too loud, it drowns what tells images apart.
        default = math.sqrt(self.embedding_size) / 5
        self.label_scale = default if config.label_scale is None else config.label_scale
        input_size = self.embedding_size + config.ways + 1
        self.core = make_core(config.core, input_size=input_size, **config.core_settings)
        self.head = nn.Linear(self.core.output_size, config.ways)
        self.autocast = False
        """Whether the encoder runs in bfloat16; a matter of the machine, so not in the configuration."""

    @property
    def unknown(self) -> int:
        """The label that means 'unknown': N."""
        return self.config.ways

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def blank(self, batch: int) -> Memory:
        """The memory of B episodes that have not begun."""
        label = torch.full((batch,), self.unknown, device=self.device)
        return Memory(self.core.initial_state(batch), label)

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (or float, 0 to 255) images [..., C, H, W] -> float32 [..., embedding_size]."""
        flat = images.flatten(0, -4)
        # In evaluation images do not know of each other, and a few at a time need little memory.
        parts = (flat,) if self.training or torch.is_grad_enabled() else flat.split(IMAGES_AT_ONCE)
        embedded = torch.cat([self._encode(part) for part in parts])
        return self.norm(embedded.float()).unflatten(0, images.shape[:-3])

    def _encode(self, images: Tensor) -> Tensor:
        images = (images - self.mean) / self.std
        images = images.contiguous(memory_format=torch.channels_last)  # faster everywhere, twice so on a CPU
        # Nothing is cast twice in a step, and a cast that is remembered cannot be captured in a CUDA graph.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast, cache_enabled=False):
            return self.encoder(images)

    def read(self, embedded: Tensor, labels: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Show examples, embedded [B, S, E] with labels [B, S].

        Returns the logits [B, S, N] at each, which with delayed labels are predictions, and the memory after them.
        """
        if self.config.labels == "synchronous":
            told, last = labels, memory.label
        else:
            told, last = torch.cat([memory.label[:, None], labels[:, :-1]], dim=1), labels[:, -1]
        logits, state = self._step(embedded, told, memory.state)
        return logits, Memory(state, last)

    def answer(self, embedded: Tensor, memory: Memory) -> Tensor:
        """Logits [B, Q, N] for queries, embedded [B, Q, E], each from the same memory, which stays as it is."""
        queries = embedded.shape[1]
        state = memory.state.repeat_interleave(queries, dim=0)
        told = memory.label.repeat_interleave(queries, dim=0)[:, None]
        logits, _ = self._step(embedded.flatten(0, 1)[:, None], told, state)
        return logits.view(-1, queries, self.config.ways)

    def _step(self, embedded: Tensor, told: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        label = F.one_hot(told, self.config.ways + 1).to(embedded.dtype) * self.label_scale
        out, state = self.core(torch.cat([embedded, label], dim=-1), state)
        return self.head(out), state

    @torch.no_grad()
    def learn(self, images: Tensor, labels: Tensor, memory: Memory | None = None) -> Memory:
        """Show labelled images to one learner or to B of them.

        Args:
            images: uint8 [B, S, C, H, W], or [S, C, H, W] for one learner, in the order in which they are shown.
            labels: int64 [B, S] or [S], 0 to N - 1.
            memory: what the last call returned; None begins anew.

        Raises:
            ValueError: images of another shape than the classifier's; a label out of range.
        """
        images, labels = self._batched(images), torch.as_tensor(labels, device=self.device)
        labels = labels.view(images.shape[:2])
        low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, 0)
        if low < 0 or high >= self.config.ways:
            raise ValueError(f"labels go from {low} to {high}, expected 0 to {self.config.ways - 1}")
        memory = self.blank(len(images)) if memory is None else memory
        return self.read(self.embed(images), labels, memory)[1]

    @torch.no_grad()
    def predict(self, images: Tensor, memory: Memory) -> Tensor:
        """Probabilities [B, Q, N] (or [Q, N] for one learner) for images [B, Q, C, H, W] (or [Q, C, H, W]).

        Raises:
            ValueError: images of another shape than the classifier's.
            FloatingPointError: the classifier's logits are NaN or infinite.
        """
        single = images.dim() == 4
        logits = self.answer(self.embed(self._batched(images)), memory)
        check_finite(logits.isfinite().all())
        probabilities = logits.softmax(-1)
        return probabilities[0] if single else probabilities

    def _batched(self, images: Tensor) -> Tensor:
        images = torch.as_tensor(images, device=self.device)
        batched = images[None] if images.dim() == 4 else images
        if batched.dim() != 5 or tuple(batched.shape[2:]) != tuple(self.config.image_shape):
            raise ValueError(f"images have shape {list(images.shape)}, expected [..., {list(self.config.image_shape)}]")
        return batched


def check_finite(finite: Tensor) -> None:
    """Raise FloatingPointError if ``finite`` is False; waits for the device. The likeliest of NaN is the first."""
    if not finite:
        raise FloatingPointError("the classifier's logits are not finite: NaN in its weights, its memory or the images")


def save_classifier(classifier: FewShotClassifier, path: str | os.PathLike[str], *, half: bool = False) -> Path:
    """Write a portable classifier into the folder ``path``, as :func:`srwm_agents.save_agent` does with an agent."""
    return write_portable(classifier, KIND, asdict(classifier.config), path, half=half)


def load_classifier(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> FewShotClassifier:
    """Read a classifier that :func:`save_classifier` wrote, in evaluation mode; as :func:`srwm_agents.load_agent`."""

    def make(raw: Any) -> FewShotClassifier:
        return FewShotClassifier(config_from_json(ClassifierConfig, raw, required={"core", "core_settings"}))

    return read_portable(path, KIND, make).eval().to(device)
