"""Safetensors files from anywhere: their header is checked before anything of the size that it names is read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import IO, Any

from srwm_agents.checksums import ALTERED, DIGEST_KEY, is_unaltered
from srwm_agents.limits import MAX_PARAMETERS, MAX_TENSORS, check_limit

BYTES_A_TENSOR = 1000
"""In a header, at most; with the largest number of tensors it limits the header."""


class TensorFileError(ValueError):
    """A file is no safetensors file, or an altered one; one line says which and why."""


def read_tensor_file(file: Path) -> tuple[bytes, dict[str, str]]:
    """Read a safetensors file: its content and its metadata.

    Raises:
        TensorFileError: it is not as long as its header says, has none, or is not what its SHA-256 is of. (Files of
            earlier versions have none in them.)
        LimitError: it is larger than it may be; no more than its header was read then.
        OSError: it cannot be read.
    """
    with file.open("rb") as handle:  # once: the file may be replaced meanwhile
        entries = _header(file, handle)
        handle.seek(0)
        content = handle.read(os.fstat(handle.fileno()).st_size)
    metadata = {str(key): str(value) for key, value in entries.get("__metadata__", {}).items()}
    if DIGEST_KEY in metadata and not is_unaltered(content, metadata[DIGEST_KEY]):
        raise TensorFileError(f"{file} {ALTERED}")
    return content, metadata


def _header(file: Path, handle: IO[bytes]) -> dict[str, Any]:
    size = os.fstat(handle.fileno()).st_size
    length = int.from_bytes(handle.read(8), "little")
    if length > size:
        raise TensorFileError(f"{file} is truncated or altered: it has no safetensors header")
    check_limit(length, MAX_TENSORS, f"bytes in the header of {file}", times=BYTES_A_TENSOR)
    try:
        entries = json.loads(handle.read(length))
        tensors = [entry for name, entry in entries.items() if name != "__metadata__"]
        whole = 8 + length + max(int(entry["data_offsets"][1]) for entry in tensors)
        numbers = sum(math.prod(map(int, entry["shape"])) for entry in tensors)
        dict(entries.get("__metadata__", {}))
    except (ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise TensorFileError(f"{file} is truncated or altered: it has no safetensors header") from error
    if whole != size:
        raise TensorFileError(f"{file} is truncated or altered: it has {size:,} bytes, its header says {whole:,}")
    if numbers > 8 * size:  # not even as single bits
        raise TensorFileError(f"{file} is truncated or altered: its header has more numbers than it holds")
    check_limit(len(tensors), MAX_TENSORS, f"tensors in {file}")
    check_limit(numbers, MAX_PARAMETERS, f"numbers in {file}")
    return entries
