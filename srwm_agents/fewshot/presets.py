"""Settings by name. A preset sets defaults: any flag on the command line overrides it.

The sizes of the Omniglot, mini-ImageNet, sequential and bootstrap presets are those of Irie et al., ICML 2022 (their
published scripts), with these deviations: five queries an episode in place of one, which are independent of each other
and cost next to nothing beside the examples; on mini-ImageNet, shifted and mirrored training images.
"""

from __future__ import annotations

from typing import Any

Preset = dict[str, Any]

_MINI: Preset = {
    "dataset": "mini-imagenet",
    "queries": 5,
    "encoder_channels": 32,
    "vision_dropout": 0.1,
    "num_layers": 3,
    "dropout": 0.1,
    "train_steps": 600_000,
    "batch_size": 16,
    "lr_schedule": "inverse_sqrt",
    "warmup_steps": 5000,
    "augment_flip": True,
    "augment_shift": 8,
}

PRESETS: dict[str, Preset] = {
    # Anywhere: no download, minutes on one CPU core.
    "glyphs": {
        "dataset": "glyphs",
        "image_size": 20,
        "encoder_channels": 32,
        "label_scale": 1.0,
        "hidden_size": 64,
        "num_heads": 4,
        "ff_size": 128,
        "queries": 5,
        "batch_size": 32,
        "train_steps": 3000,
        "learning_rate": 3e-3,
        "lr_schedule": "cosine",
        "warmup_steps": 100,
        "validate_every": 250,
    },
    "omniglot-1shot": {
        "dataset": "omniglot",
        "rotations": "omniglot",
        "queries": 5,
        "train_steps": 300_000,
        "validate_every": 2000,
    },
    "mini-1shot": {**_MINI, "shots": 1, "ff_size": 1024},
    "mini-5shot": {**_MINI, "shots": 5, "ff_size": 2048},
    "sequential": {
        "dataset": "omniglot,mini-imagenet",
        "task": "sequential",
        "labels": "delayed",
        "image_size": 84,
        "channels": 3,
        "encoder_channels": 32,
        "rotations": "omniglot",
        "shots": 15,
        "num_layers": 3,
        "ff_size": 256,
        "learning_rate": 3e-4,
        "batch_size": 32,
        "gradient_accumulation": 2,
        "train_steps": 1_000_000,
    },
    "bootstrap": {**_MINI, "task": "bootstrap", "shots": 10, "future_shots": 5, "ff_size": 2048},
}
