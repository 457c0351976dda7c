"""Every setting of training, its default and what it means: the flags of ``fewshot train`` are made from this."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from srwm_agents.cores import CORES, CoreConfig, core_setting_names, core_settings_of
from srwm_agents.fewshot.classifier import ENCODERS, LABELS
from srwm_agents.fewshot.data import DATASET_NAMES, DEFAULT_DATA_DIR
from srwm_agents.fewshot.optimisation import SCHEDULES
from srwm_agents.recipes import load_recipe
from srwm_agents.settings import Range, check_choices, check_ranges, setting

TASKS = ("few_shot", "sequential", "bootstrap")


def _core_settings() -> Any:
    """A dataclass with a field for each setting of a core, and few-shot learning's own defaults."""
    defaults = load_recipe("fewshot", "_default")
    names = core_setting_names()
    entries = [
        (entry.name, entry.type, field(default=defaults.get(entry.name, entry.default), metadata=entry.metadata))
        for entry in fields(CoreConfig)
        if entry.name in names
    ]
    return make_dataclass("CoreSettings", entries, frozen=True)


@dataclass(frozen=True)
class Settings(_core_settings()):
    """What to train, on what, how, and where it goes; the settings of the core are fields like the others."""

    dataset: str = setting("glyphs", "Data set; two, comma-separated, for the sequential task")
    task: str = setting("few_shot", "What an episode is", TASKS)
    labels: str = setting("synchronous", "Whether an example comes with its label or with the one before it", LABELS)
    ways: int = setting(5, "Classes an episode", allowed=Range(2))
    shots: int = setting(1, "Examples a class; sequential: the most in each part", allowed=Range(1))
    queries: int = setting(1, "Queries an episode in training, each answered on its own", allowed=Range(1))
    future_shots: int = setting(
        5, "Bootstrap: further examples a class before the queries are asked again", allowed=Range(1)
    )
    rotations: str = setting("", "Data sets, comma-separated, whose classes, turned by 90, 180, 270 degrees, make more")
    image_size: int | None = setting(None, "Side of the images; default: the data set's")
    channels: int | None = setting(None, "1 for grey, 3 for colour images; default: the data set's")

    encoder: str = setting("conv4", "Image encoder", ENCODERS)
    encoder_channels: int = setting(64, "Width of the encoder (resnet12: of its first block)", allowed=Range(1))
    vision_dropout: float = setting(0.0, "Dropout after each block of the encoder", allowed=Range(0, 1, open_high=True))
    label_scale: float | None = setting(
        None,
        "Factor on the label's one-hot code; default: sqrt(embedding's width) / 5",
        allowed=Range(0, open_low=True),
    )
    core: str = setting("srwm", "Memory of the classifier", CORES)

    train_steps: int = setting(100_000, "Updates", allowed=Range(1))
    batch_size: int = setting(128, "Episodes an update, over all processes and accumulated parts", allowed=Range(1))
    gradient_accumulation: int = setting(1, "Parts that a batch is worked off in, to save memory", allowed=Range(1))
    learning_rate: float = setting(1e-3, "Of Adam, at its highest", allowed=Range(0, open_low=True))
    lr_schedule: str = setting("constant", "Learning rate after the warm-up", SCHEDULES)
    warmup_steps: int = setting(0, "Updates over which the learning rate grows linearly from 0", allowed=Range(0))
    weight_decay: float = setting(0.0, "Decoupled weight decay (AdamW)", allowed=Range(0))
    max_grad_norm: float = setting(1.0, "The gradient is scaled down to this norm; 0: never", allowed=Range(0))
    average_decay: float = setting(
        0.0,
        "Evaluate and save a running average of the weights with this decay; 0: none",
        allowed=Range(0, 1, open_high=True),
    )
    augment_shift: int = setting(0, "Shift training images by up to this many pixels", allowed=Range(0))
    augment_flip: bool = setting(False, "Mirror half of the training images")
    augment_crop: float = setting(
        1.0,
        "Crop training images to a random share of their area, at least this; 1: never",
        allowed=Range(0, 1, open_low=True),
    )
    augment_colour: float = setting(
        0.0, "Change their brightness, contrast and saturation by factors in 1 ± this", allowed=Range(0, 1)
    )
    bootstrap_weight: float = setting(10.0, "Bootstrap: weight of KL(future || now)", allowed=Range(0))
    auxiliary_weight: float = setting(
        0.0, "Weight of also classifying all images among the training classes", allowed=Range(0)
    )
    seed: int = setting(0, "Of weights, episodes and dropout")

    device: str = setting("auto", "cpu, cuda, cuda:1, …; auto: cuda where there is one")
    mixed_precision: str = setting("none", "Precision of the encoder", ("none", "bf16"))
    compile: bool = setting(False, "Compile the model with torch.compile")
    cuda_graph: bool = setting(False, "Capture an update, drawing included, in a CUDA graph; not for sequential")

    data_dir: Path = setting(DEFAULT_DATA_DIR, "Where the data sets lie (see: fewshot data); glyphs need none")
    cache_dir: Path | None = setting(None, "Where decoded images are kept; default: ~/.cache/srwm_agents/fewshot")
    train_dir: Path = setting(Path("train_dir"), "Where experiments lie")
    experiment: str | None = setting(None, "Name of the experiment and its folder; default: the preset's name")
    restart_behavior: str = setting("resume", "If the experiment is there already", ("resume", "overwrite"))
    train_seconds: float | None = setting(
        None,
        "End training, schedule and all, after this time if train_steps take longer; resumed parts count",
        allowed=Range(0, open_low=True),
    )
    train_for_seconds: float | None = setting(
        None, "Stop, save and exit after this time; the same command goes on", allowed=Range(0)
    )
    validate_every: int = setting(1000, "Updates between validations", allowed=Range(1))
    validation_episodes: int = setting(1000, "Episodes of a validation, always the same ones", allowed=Range(1))
    log_every: int = setting(50, "Updates between looks at the loss, for TensorBoard and the display", allowed=Range(1))
    save_every_sec: float = setting(60.0, "Seconds between checkpoints (each validation saves too)", allowed=Range(0))

    def __post_init__(self) -> None:
        check_choices(self)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value}, expected a finite number")
        check_ranges(self)
        CoreConfig(input_size=1, **self.core_settings)  # raises for a value out of range
        for name in (*self.datasets, *self.rotated):
            if name not in DATASET_NAMES:
                raise ValueError(f"unknown data set {name!r}, allowed: {', '.join(DATASET_NAMES)}")
        wanted = 2 if self.task == "sequential" else 1
        if len(self.datasets) != wanted:
            raise ValueError(f"task {self.task} takes {wanted} data set(s), not {self.dataset!r}")
        if self.batch_size % self.gradient_accumulation:
            nearest = max(1, round(self.batch_size / self.gradient_accumulation)) * self.gradient_accumulation
            raise ValueError(
                f"batch_size is {self.batch_size}, expected a multiple of gradient_accumulation = "
                f"{self.gradient_accumulation}, as {nearest}"
            )
        if self.cuda_graph and self.task == "sequential":
            raise ValueError("cuda_graph is for steps of one shape, and the sequential task's lengths are random")

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets' names."""
        return tuple(name.strip() for name in self.dataset.split(","))

    @property
    def rotated(self) -> tuple[str, ...]:
        """The data sets with rotations."""
        return tuple(name.strip() for name in self.rotations.split(",") if name.strip())

    @property
    def core_settings(self) -> dict[str, Any]:
        """The keyword arguments of ``make_core`` but for input_size."""
        return core_settings_of(vars(self))

    def fixed(self) -> dict[str, Any]:
        """What a resumed experiment must agree in: everything that training is of."""
        return {name: getattr(self, name) for name in _FIXED}

    def to_json(self) -> dict[str, Any]:
        """All settings but the folders, which are the machine's."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.endswith("_dir")}


SUBJECTS = {
    "what is learned (fixed for the life of an experiment)": "dataset",
    "model (fixed as well)": "encoder",
    "training": "train_steps",
    "where it runs": "device",
    "files and time": "data_dir",
}
"""Titles of the settings' parts, with the first setting of each; those of the core are apart."""
_FIXED = (
    *("dataset", "task", "labels", "ways", "shots", "queries", "future_shots", "rotations", "image_size", "channels"),
    *("encoder", "encoder_channels", "vision_dropout", "label_scale", "core", *core_setting_names(fixed=True)),
    *("batch_size", "average_decay"),
    *("auxiliary_weight", "bootstrap_weight", "augment_shift", "augment_flip", "augment_crop", "augment_colour"),
    "seed",
)
