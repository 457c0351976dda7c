"""The portable format: a configuration as JSON and weights as safetensors, which any program with PyTorch can read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FORMAT = 1
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")


class AgentError(ValueError):
    """A saved agent is missing, damaged, or does not fit what it is asked to do; the message says which and why."""


def config_from_json(cls: Callable[..., Config], raw: Any, required: Collection[str]) -> Config:
    """Make a dataclass from a JSON object, with tuples for lists.

    Raises:
        AgentError: a field that is unknown or missing, or no object at all.
    """
    if not isinstance(raw, dict):
        raise AgentError("the configuration is no JSON object")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(raw) - known):
        raise AgentError(f"unknown field {unknown[0]!r}, allowed: {', '.join(sorted(known))}")
    if missing := sorted(set(required) - set(raw)):
        raise AgentError(f"field {missing[0]!r} is missing")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()})


def write_portable(
    model: nn.Module, kind: str, config: dict[str, Any], path: str | os.PathLike[str], *, half: bool = False
) -> Path:
    """Write ``config.json`` and ``model.safetensors`` into the folder ``path``; a good one is replaced only when the
    new one is whole on disk. ``kind`` names what the configuration is of, and is its key in the file. ``half`` writes
    float32 as float16, in half the space; loading makes float32 of it again.

    Raises:
        ValueError: a number that float16 cannot hold.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    target = Path(path)
    fresh, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file(tensors, fresh / WEIGHTS_FILE)
    document = {"format": FORMAT, "weights_sha256": _sha256(fresh / WEIGHTS_FILE), kind: config}
    (fresh / CONFIG_FILE).write_text(json.dumps(document, indent=2) + "\n")
    for file in (WEIGHTS_FILE, CONFIG_FILE):
        with (fresh / file).open("rb+") as handle:
            os.fsync(handle.fileno())
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def read_portable(path: str | os.PathLike[str], kind: str, make: Callable[[Any], Module]) -> Module:
    """Read what :func:`write_portable` wrote: ``make`` builds the module from its configuration.

    Only JSON and safetensors are read; nothing in the files is ever executed.

    Raises:
        AgentError: a missing, truncated, altered or unknown file, or one of another kind; nothing is loaded then.
    """
    folder = Path(path)
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise AgentError(f"no agent at {folder}: {file} is missing")
    try:
        document = json.loads((folder / CONFIG_FILE).read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AgentError(f"{folder / CONFIG_FILE} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise AgentError(f"{folder / CONFIG_FILE} has format {found!r}, this version reads {FORMAT}")
    if kind not in document:
        kinds = ", ".join(sorted(set(document) - {"format", "weights_sha256"})) or "nothing"
        raise AgentError(f"{folder} holds {kinds}, expected {kind}")
    if document.get("weights_sha256") != _sha256(folder / WEIGHTS_FILE):
        raise AgentError(f"{folder / WEIGHTS_FILE} is truncated or altered: its SHA-256 is not the recorded one")
    try:
        model = make(document[kind])
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (AgentError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise AgentError(f"{folder} holds no agent that this version can make: {reason}") from error
    return model


def _halved(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} has entries up to {tensor.abs().max():.3g}, which float16 cannot hold")
    return half


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
