"""The saved format: one safetensors file with weights and configuration, which any program with PyTorch can read.

``model.safetensors`` holds the state dict, and in its metadata two strings: ``srwm_agents``, a JSON object with
``format``, and the configuration under the name of its kind; and ``sha256``, of the whole file with zeros in the place
of these 64 digits. ``config.json`` beside it is a copy of the JSON object for people, which is not read.

Format 1, which is still read, had the configuration in ``config.json`` alone, with the SHA-256 of
``model.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srwm_agents.files import remove_leftovers, write_atomically

FORMAT = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
METADATA_KEY = "srwm_agents"

_NO_DIGEST = "0" * 64
_REPLACEMENTS = (".new", ".old")
"""Endings of folders that a writer of format 1, killed while it replaced a folder, left beside it."""

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
    """Write ``model.safetensors``, and ``config.json`` as a copy of its configuration, into the folder ``path``.

    ``model.safetensors`` alone is the saved model, and is replaced by one ``os.replace``: whenever this is killed, a
    reader finds the old model or the new one, whole. What killed writers left behind is removed.

    Args:
        model: its state dict is saved.
        kind: what the configuration is of; its key in the JSON object.
        config: what the model is made from, of JSON's types.
        path: the folder; it is made if it is missing.
        half: write float32 as float16, in half the space; loading makes float32 of it again.

    Returns:
        The folder.

    Raises:
        ValueError: a number that float16 cannot hold.
        OSError: the folder cannot be written; the model that was there stays.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    document = {"format": FORMAT, kind: config}
    folder = Path(path)
    write_atomically(folder / WEIGHTS_FILE, _with_digest(tensors, json.dumps(document)))
    write_atomically(folder / CONFIG_FILE, json.dumps(document, indent=2) + "\n")
    remove_leftovers(folder)
    for leftover in (folder.with_name(folder.name + ending) for ending in _REPLACEMENTS):
        # Only what format 1 consisted of: anything else there is somebody's own.
        if leftover.is_dir() and {file.name for file in leftover.iterdir()} <= {CONFIG_FILE, WEIGHTS_FILE}:
            shutil.rmtree(leftover)
    return folder


def find_portable(path: str | os.PathLike[str]) -> Path | None:
    """The file of the model that was saved in the folder ``path`` (or is the file ``path``); None if there is none."""
    given = Path(path)
    if given.is_file():
        return given
    # A replacement in format 1 that was killed halfway: the new folder is whole before the old one is moved away.
    for folder in (given, *(given.with_name(given.name + ending) for ending in _REPLACEMENTS)):
        if (folder / WEIGHTS_FILE).is_file():
            return folder / WEIGHTS_FILE
    return None


def read_portable(path: str | os.PathLike[str], kind: str, make: Callable[[Any], Module]) -> Module:
    """Read what :func:`write_portable` wrote.

    Only JSON and safetensors are read; nothing in the files is ever executed.

    Args:
        path: the folder, or the file in it.
        kind: what the configuration has to be of.
        make: builds the module from its configuration.

    Raises:
        AgentError: a missing, truncated, altered or unknown file, one of another kind, or one whose configuration asks
            for other weights than it holds; nothing is loaded then.
    """
    file = find_portable(path)
    if file is None:
        raise AgentError(f"no agent at {path}: {WEIGHTS_FILE} is missing")
    content = file.read_bytes()  # once: the file may be replaced meanwhile
    document = _document(file, content)
    if kind not in document:
        kinds = ", ".join(sorted(set(document) - {"format", "weights_sha256"})) or "nothing"
        raise AgentError(f"{file.parent} holds {kinds}, expected {kind}")
    try:
        tensors = load(content)
        with _CreationLimit(file, tensors.values()):
            model = make(document[kind])
        model.load_state_dict(tensors)
    except (AgentError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise AgentError(f"{file.parent} holds no agent that this version can make: {reason}") from error
    return model


def _document(file: Path, content: bytes) -> dict[str, Any]:
    """The JSON object of a saved model, after its checksum; AgentError if anything is wrong with either."""
    metadata = _metadata(content)
    if metadata is None:
        raise AgentError(f"{file} is truncated or altered: it has no safetensors header")
    if METADATA_KEY in metadata:
        source, text, digest = file, metadata[METADATA_KEY], metadata.get("sha256", "")
        if _sha256_without(digest, content) != digest:
            raise AgentError(f"{file} is truncated or altered: its SHA-256 is not the recorded one")
    else:
        source = file.with_name(CONFIG_FILE)
        if not source.is_file():
            raise AgentError(f"no agent at {file.parent}: {CONFIG_FILE} is missing")
        text = source.read_text(errors="replace")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise AgentError(f"{source} is no JSON: {error}") from error
    expected = FORMAT if source == file else 1
    found = document.get("format") if isinstance(document, dict) else None
    if found != expected:
        raise AgentError(f"{source} has format {found!r}, this version reads 1 and {FORMAT}")
    if expected == 1 and document.get("weights_sha256") != hashlib.sha256(content).hexdigest():
        raise AgentError(f"{file} is truncated or altered: its SHA-256 is not the recorded one")
    return document


def _metadata(content: bytes) -> dict[str, str] | None:
    """The metadata in a safetensors file's header; None if it has no header."""
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}
    except (ValueError, AttributeError):
        return None


def _with_digest(tensors: dict[str, Tensor], document: str) -> bytes:
    """A safetensors file of tensors and document, with its own checksum."""
    content = save(tensors, metadata={METADATA_KEY: document, "sha256": _NO_DIGEST})
    digest = hashlib.sha256(content).hexdigest()
    start = _digest_position(content, _NO_DIGEST)
    return b"".join((content[:start], digest.encode(), content[start + len(digest) :]))


def _sha256_without(digest: str, content: bytes) -> str | None:
    """The checksum of a file that ``digest`` was written into; None if it does not stand where it should."""
    start = _digest_position(content, digest)
    if start < 0 or len(digest) != len(_NO_DIGEST):
        return None
    view = memoryview(content)
    found = hashlib.sha256(view[:start])
    found.update(_NO_DIGEST.encode())
    found.update(view[start + len(_NO_DIGEST) :])
    return found.hexdigest()


def _digest_position(content: bytes, digest: str) -> int:
    # Within the document, which is a string of the same header, each quotation mark stands behind a backslash.
    prefix = b'"sha256":"'
    start = content.find(prefix + digest.encode() + b'"', 0, 8 + int.from_bytes(content[:8], "little"))
    return start if start < 0 else start + len(prefix)


class _CreationLimit(TorchFunctionMode):
    """Ends the making of a module that needs much more weights than a file holds, before memory and time are gone.

    The exact comparison is ``load_state_dict``'s; here a factor is left for temporary tensors and initial values.
    """

    created = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full)

    def __init__(self, file: Path, tensors: Collection[Tensor]) -> None:
        super().__init__()
        self.file = file
        self.tensors_left = 4 * len(tensors) + 100
        self.elements_left = 4 * sum(tensor.numel() for tensor in tensors) + 10_000_000

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.created:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self.tensors_left -= 1
            self.elements_left -= math.prod(size)
            if self.tensors_left < 0 or self.elements_left < 0:
                raise AgentError(f"the configuration asks for more weights than {self.file.name} holds")
        return func(*args, **kwargs)


def _halved(name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.float32:
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise ValueError(f"{name} has entries up to {tensor.abs().max():.3g}, which float16 cannot hold")
    return half
