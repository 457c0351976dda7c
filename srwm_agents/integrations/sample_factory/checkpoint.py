"""Sample Factory's checkpoint files, replaced atomically and loaded without running code from them."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import torch

from srwm_agents.checksums import load_torch_file, torch_file_with_digest
from srwm_agents.files import remove_leftovers, write_atomically

_NAME = re.compile(r"^(?P<kind>checkpoint|best)_(?P<step>\d{9,})_(?P<frames>\d+).*\.pth$")


class CheckpointError(RuntimeError):
    """A checkpoint exists but cannot be used; training must not start over in its place."""


class NotFiniteError(RuntimeError):
    """Training has diverged: something that it goes on from is not finite. The message says what."""


def list_checkpoints(folder: str | os.PathLike[str], kind: str) -> list[Path]:
    """Finished checkpoints of a kind ("checkpoint" or "best"), oldest first; temporary files are not among them."""
    found = []
    for file in Path(folder).glob(f"{kind}_*"):
        if (match := _NAME.match(file.name)) and match["kind"] == kind:
            found.append((int(match["step"]), int(match["frames"]), file))
    return [file for _, _, file in sorted(found)]


def save_checkpoint(checkpoint: dict[str, Any], file: Path) -> None:
    """Write a checkpoint atomically, and remove what killed writers left in its folder.

    Raises:
        NotFiniteError: a number in it is not finite; nothing is written.
        OSError: it cannot be written.
    """
    if name := first_not_finite(checkpoint):
        raise NotFiniteError(
            f"training has diverged: {name} is not finite, so that nothing was saved; the last checkpoint is "
            "untouched, and a lower --learning_rate may help"
        )
    write_atomically(file, torch_file_with_digest(checkpoint))
    remove_leftovers(file.parent)


def load_checkpoint(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, so a foreign file can run no code.

    Raises:
        CheckpointError: the file does not load, is no checkpoint, or has numbers that are not finite.
    """
    try:
        checkpoint = load_torch_file(file, device)
    except Exception as error:  # torch.load raises many types for damaged files
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"checkpoint {file} does not load ({reason}); restore it, or move it away to resume from an older one"
        ) from error
    missing = {"train_step", "env_steps", "model", "optimizer"} - set(
        checkpoint if isinstance(checkpoint, dict) else ()
    )
    if missing:
        raise CheckpointError(f"checkpoint {file} lacks {', '.join(sorted(missing))}; restore it or move it away")
    if name := first_not_finite(checkpoint):
        raise CheckpointError(
            f"checkpoint {file} cannot be gone on from: {name} is not finite; move it away to resume from an older one"
        )
    return checkpoint


def first_not_finite(content: Any, name: str = "") -> str | None:
    """The path, with slashes, of the first number or tensor in nested mappings and sequences that has a NaN, or an
    infinity in a tensor; None if there is none.

    Single numbers may be infinite: the best score of a run is -inf before there is any.
    """
    if isinstance(content, torch.Tensor):
        finite = not content.is_floating_point() or bool(content.isfinite().all())
    elif isinstance(content, float):
        finite = not math.isnan(content)
    else:
        entries = content.items() if isinstance(content, dict) else ()
        entries = enumerate(content) if isinstance(content, list | tuple) else entries
        found = (first_not_finite(entry, f"{name}/{key}" if name else str(key)) for key, entry in entries)
        return next(filter(None, found), None)
    return None if finite else name
