"""The saved format: one safetensors file with weights and configuration, which any program with PyTorch can read.

``model.safetensors`` holds the state dict, and in its metadata two strings: ``srwm_agents``, a JSON object with
``format``, and the configuration under the name of its kind; and ``sha256``, as :mod:`srwm_agents.checksums` has it.
``config.json`` beside it is a copy of the JSON object for people, which is not read.

Format 1, which is still read, had the configuration in ``config.json`` alone, with the SHA-256 of
``model.safetensors``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import reprlib
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from srwm_agents.checksums import ALTERED, DIGEST_KEY, safetensors_with_digest
from srwm_agents.files import printable, remove_leftovers, write_atomically
from srwm_agents.limits import MAX_TENSORS, LimitError, check_limit
from srwm_agents.tensor_files import BYTES_A_TENSOR, TensorFileError, read_tensor_file

FORMAT = 2
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
METADATA_KEY = "srwm_agents"

_REPLACEMENTS = (".new", ".old")
"""Endings of folders that a writer of format 1, killed while it replaced a folder, left beside it."""
_MAKING_ERRORS = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
"""What making a model from a damaged or foreign configuration raises."""

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")


class AgentError(ValueError):
    """A saved agent is missing, damaged, or does not fit what it is asked to do; one line says which and why."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def config_from_json(cls: Callable[..., Config], raw: Any, required: Collection[str]) -> Config:
    """Make a dataclass from a JSON object, with tuples for lists.

    Raises:
        AgentError: a field that is unknown or missing, or no object at all.
    """
    if not isinstance(raw, dict):
        raise AgentError(f"the configuration is {reprlib.repr(raw)}, expected a JSON object")
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(raw) - known):
        raise AgentError(f"unknown field {reprlib.repr(unknown[0])}, allowed: {', '.join(sorted(known))}")
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
        AgentError: a weight that is NaN or infinite; the model that was there stays.
        ValueError: a number that float16 cannot hold.
        OSError: the folder cannot be written; the model that was there stays.
    """
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    if broken := nonfinite(tensors):
        raise AgentError(f"{path} is not written: {broken}")
    if half:
        tensors = {name: _halved(name, tensor) for name, tensor in tensors.items()}
    document = {"format": FORMAT, kind: config}
    folder = Path(path)
    write_atomically(folder / WEIGHTS_FILE, safetensors_with_digest(tensors, {METADATA_KEY: json.dumps(document)}))
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


def saved_kinds(path: str | os.PathLike[str]) -> set[str]:
    """What is saved at ``path``: "agent", "few_shot_classifier"; only the configuration is looked at.

    Raises:
        AgentError: a missing, truncated, altered or unknown file.
    """
    return set(_read_document(path)[2]) - {"format", "weights_sha256"}


def nonfinite(tensors: Mapping[str, Tensor]) -> str:
    """What is wrong with weights of which some are NaN or infinite, for an error message; empty if none is."""
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    return f"{broken[0]} is not finite (as {len(broken)} of {len(tensors)} tensors)" if broken else ""


def read_portable(path: str | os.PathLike[str], kind: str, make: Callable[[Any], Module]) -> Module:
    """Read what :func:`write_portable` wrote.

    Only JSON and safetensors are read; nothing in the files is ever executed.

    Args:
        path: the folder, or the file in it.
        kind: what the configuration has to be of.
        make: builds the module from its configuration.

    Raises:
        AgentError: a missing, truncated, altered or unknown file, one of another kind, one whose configuration asks
            for other weights than it holds, one with weights that are NaN or infinite, or one with more of them than
            :mod:`srwm_agents.limits` allows; nothing is loaded then.
    """
    file, content, document = _read_document(path)
    if kind not in document:
        kinds = ", ".join(sorted(set(document) - {"format", "weights_sha256"})) or "nothing"
        raise AgentError(f"{file.parent} holds {kinds[:100]}, expected {kind}")
    try:
        tensors = load(content)
        with _CreationLimit(file, tensors.values()):
            model = make(document[kind])
        _compare(model.state_dict(), tensors, file)
        if broken := nonfinite(tensors):
            raise AgentError(broken)
        model.load_state_dict(tensors)
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = " ".join(str(error).split())[:400]
        raise AgentError(f"{file.parent} holds no agent that this version can make: {reason}") from error
    return model


def _read_document(path: str | os.PathLike[str]) -> tuple[Path, bytes, dict[str, Any]]:
    """The saved file, its content and its JSON object; AgentError if anything is wrong with them."""
    try:
        file = find_portable(path)
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}") from error
    if file is None:
        raise AgentError(f"no agent at {path}: {WEIGHTS_FILE} is missing")
    try:
        content, metadata = read_tensor_file(file)
        return file, content, _document(file, content, metadata)
    except OSError as error:
        raise AgentError(f"{file} cannot be read: {error.strerror}") from error
    except (TensorFileError, LimitError) as error:
        raise AgentError(str(error)) from error


def _compare(asked: Mapping[str, Tensor], held: Mapping[str, Tensor], file: Path) -> None:
    """AgentError unless a file holds the tensors that its configuration asks for, and no others."""
    if other := sorted(asked.keys() ^ held.keys()):
        who = "the configuration asks for it" if other[0] in asked else f"{file.name} holds it"
        raise AgentError(f"only {who}: {reprlib.repr(other[0])}, as {len(other)} tensors in all")
    for name, tensor in held.items():
        if tensor.shape != asked[name].shape:
            wanted = list(asked[name].shape)
            raise AgentError(
                f"size mismatch: {name} has shape {list(tensor.shape)}, the configuration asks for {wanted}"
            )
        if tensor.is_floating_point() != asked[name].is_floating_point() or tensor.is_complex():
            raise AgentError(f"{name} is {tensor.dtype}, expected {asked[name].dtype}")


def _document(file: Path, content: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object of a saved model; AgentError if anything is wrong with it or, in format 1, with the checksum."""
    if METADATA_KEY in metadata:
        source, text = file, metadata[METADATA_KEY]
        if DIGEST_KEY not in metadata:
            raise AgentError(f"{file} {ALTERED}")
    else:
        source = file.with_name(CONFIG_FILE)
        if not source.is_file():
            raise AgentError(f"no agent at {file.parent}: {CONFIG_FILE} is missing")
        try:
            check_limit(source.stat().st_size, MAX_TENSORS, f"bytes in {source}", times=BYTES_A_TENSOR)
            text = source.read_text(errors="replace")
        except OSError as error:
            raise AgentError(f"{source} cannot be read: {error.strerror}") from error
    try:
        # JSON has no NaN and no infinity; where an earlier version wrote one into a record, nothing is known.
        document = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise AgentError(f"{source} is no JSON: {error}") from error
    expected = FORMAT if source == file else 1
    found = document.get("format") if isinstance(document, dict) else None
    if found != expected or isinstance(found, bool):
        raise AgentError(f"{source} has format {reprlib.repr(found)}, this version reads 1 and {FORMAT}")
    if expected == 1 and document.get("weights_sha256") != hashlib.sha256(content).hexdigest():
        raise AgentError(f"{file} {ALTERED}")
    return document


class _CreationLimit(TorchFunctionMode):
    """Ends the making of a module that needs much more weights than a file holds, before memory and time are gone.

    The exact comparison is :func:`_compare`'s; here a factor is left for temporary tensors and initial values.
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
