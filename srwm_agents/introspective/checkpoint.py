"""A training run on disk: one safetensors file, which is replaced atomically."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from srwm_agents.checksums import ALTERED, DIGEST_KEY, safetensors_with_digest
from srwm_agents.files import printable, remove_leftovers, write_atomically
from srwm_agents.introspective.net import IntrospectiveNet
from srwm_agents.introspective.training import TrainConfig, Training
from srwm_agents.limits import LimitError
from srwm_agents.tensor_files import TensorFileError, read_tensor_file

FORMAT = "2"
"""With a SHA-256; format 1, which is still read, had none."""
CHECKPOINT_FILE = "checkpoint.safetensors"
CAN_CHANGE = {"updates", "gradient"}
"""Settings in which a resumed run may differ from its checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another run; one line says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def save_training(training: Training, folder: Path) -> Path:
    """Write ``checkpoint.safetensors`` into ``folder``; CheckpointError if a weight is NaN or infinite."""
    if not training.weights.isfinite().all():
        raise CheckpointError(
            f"the weights are not finite at update {training.update}; {folder} keeps what it has: "
            "try a lower --learning_rate"
        )
    tensors = {"weights": training.weights.detach()}
    for name, value in training.optimizer.state[training.weights].items():
        if isinstance(value, torch.Tensor):
            tensors[f"optimizer.{name}"] = value
    about = {
        "format": FORMAT,
        "config": json.dumps(training.config.to_json()),
        "update": str(training.update),
        "seconds": str(training.seconds),
        "curve": json.dumps(training.curve),
    }
    content = safetensors_with_digest({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, about)
    file = write_atomically(folder / CHECKPOINT_FILE, content)
    remove_leftovers(folder)
    return file


def load_training(folder: Path, config: TrainConfig | None = None, device: torch.device | str = "cpu") -> Training:
    """Read what :func:`save_training` wrote.

    Args:
        folder: of the checkpoint.
        config: what the run is asked to be; None takes it from the checkpoint.
        device: where to put it.

    Raises:
        CheckpointError: a missing, truncated, altered or unknown file, one of a run with other settings, or one that is
            larger than :mod:`srwm_agents.limits` allows.
    """
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        raise CheckpointError(f"no introspective net at {folder}: {CHECKPOINT_FILE} is missing")
    try:
        content, about = read_tensor_file(file)
        tensors = load(content)
        if (found := about.get("format")) not in ("1", FORMAT):
            raise CheckpointError(f"{file} has format {found!r}, this version reads '1' and {FORMAT!r}")
        if found == FORMAT and DIGEST_KEY not in about:
            raise CheckpointError(f"{file} {ALTERED}")
        saved = TrainConfig(**json.loads(about["config"]))
        shape = (saved.num_seeds, saved.wiring.num_units, saved.wiring.num_sources)
        if (held := tuple(tensors["weights"].shape)) != shape:  # before nets of that size are made
            raise CheckpointError(f"{file} has weights {list(held)}, its settings ask for {list(shape)}")
        if not tensors["weights"].isfinite().all():
            raise CheckpointError(f"{file} has weights that are NaN or infinite")
        training = Training(_agreed(saved, config, folder), device, tensors.pop("weights"))
        training.update, training.seconds = int(about["update"]), float(about["seconds"])
        training.curve = [dict(row) for row in json.loads(about["curve"])]
        training.optimizer.state[training.weights] = {
            name.removeprefix("optimizer."): value if name == "optimizer.step" else value.to(device)
            for name, value in tensors.items()
        }
    except CheckpointError:
        raise
    except (TensorFileError, LimitError) as error:
        raise CheckpointError(str(error)) from error
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:400]
        raise CheckpointError(f"{file} holds no training run that this version can read: {reason}") from error
    return training


def load_net(folder: str | os.PathLike[str], seed: int | None = None) -> IntrospectiveNet:
    """One trained net of a run's folder, on the CPU; ``seed`` says which, None the first."""
    training = load_training(Path(folder))
    seed = training.seeds[0] if seed is None else seed
    if seed not in training.seeds:
        raise CheckpointError(f"{folder} has no seed {seed}, there: {training.seeds[0]} to {training.seeds[-1]}")
    net = training.config.make_net()
    with torch.no_grad():
        net.weight.copy_(training.weights[training.seeds.index(seed)])
    return net


def _agreed(saved: TrainConfig, asked: TrainConfig | None, folder: Path) -> TrainConfig:
    if asked is None:
        return saved
    for f in fields(TrainConfig):
        ours, theirs = getattr(asked, f.name), getattr(saved, f.name)
        if f.name not in CAN_CHANGE and ours != theirs:
            raise CheckpointError(
                f"{folder} was trained with --{f.name} {theirs}, now it is {ours}; "
                "name another --experiment, or --restart_behavior overwrite"
            )
    return replace(saved, **{name: getattr(asked, name) for name in CAN_CHANGE})
