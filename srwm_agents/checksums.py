"""Files with a SHA-256 of their own: a bit that has changed on a disk or on the way is noticed when they are read.

Both formats stay what they are for other programs:

- safetensors: the metadata's entry ``sha256`` is the digest of the whole file with zeros in the place of its 64 digits;
- ``torch.save``: the file is a zip archive, whose comment is ``sha256:`` and the digest of the archive without a
  comment. (PyTorch writes CRC-32 checksums too, but does not compare them when it loads.)
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

ALTERED = "is truncated or altered: its SHA-256 is not the recorded one"
"""What is said of such a file, after its name."""
DIGEST_KEY = "sha256"

_NO_DIGEST = "0" * 64
_COMMENT = b"sha256:"
_COMMENT_SIZE = len(_COMMENT) + 64


class AlteredError(ValueError):
    """A file is not what was written; the message does not name it."""


def safetensors_with_digest(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Make a safetensors file of tensors and metadata, whose entry ``sha256`` is added."""
    content = save(tensors, metadata={**metadata, DIGEST_KEY: _NO_DIGEST})
    digest = hashlib.sha256(content).hexdigest()
    start = _digest_position(content, _NO_DIGEST)
    return b"".join((content[:start], digest.encode(), content[start + len(digest) :]))


def is_unaltered(content: bytes, digest: str) -> bool:
    """Whether a safetensors file has the ``digest`` that stands in its metadata."""
    start = _digest_position(content, digest)
    if start < 0 or len(digest) != len(_NO_DIGEST):
        return False
    view = memoryview(content)
    found = hashlib.sha256(view[:start])
    found.update(_NO_DIGEST.encode())
    found.update(view[start + len(_NO_DIGEST) :])
    return found.hexdigest() == digest


def _digest_position(content: bytes, digest: str) -> int:
    # Within another metadata entry, which is a string in the same header, quotation marks stand behind backslashes.
    prefix = f'"{DIGEST_KEY}":"'.encode()
    start = content.find(prefix + digest.encode() + b'"', 0, 8 + int.from_bytes(content[:8], "little"))
    return start if start < 0 else start + len(prefix)


def torch_file_with_digest(content: Any) -> bytes:
    """What ``torch.save`` makes of ``content``, with its SHA-256 as the archive's comment; ``torch.load`` reads it."""
    buffer = io.BytesIO()  # torch.save into a file hides that a disk is full
    torch.save(content, buffer)
    archive = buffer.getvalue()
    digest = hashlib.sha256(archive).hexdigest().encode()
    # A zip archive ends with the length of its comment, which is 0 in PyTorch's, and the comment.
    return b"".join((archive[:-2], struct.pack("<H", _COMMENT_SIZE), _COMMENT, digest))


def load_torch_file(file: Path, device: torch.device | str = "cpu") -> Any:
    """Read what :func:`torch_file_with_digest` made; tensors and plain values only, so that a file can run no code.

    Files of earlier versions have no digest; their CRC-32 checksums are compared.

    Raises:
        AlteredError: the file is not what was written.
        OSError: it cannot be read.
        Exception: it is no such file; ``torch.load`` raises many kinds.
    """
    content = file.read_bytes()
    if not _has_right_digest(content):
        raise AlteredError(f"it {ALTERED}")
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def _has_right_digest(content: bytes) -> bool:
    head, tail = content[: -2 - _COMMENT_SIZE], content[-2 - _COMMENT_SIZE :]
    if tail[:2] == struct.pack("<H", _COMMENT_SIZE) and tail[2:].startswith(_COMMENT):
        found = hashlib.sha256(head)
        found.update(bytes(2))
        return found.hexdigest().encode() == tail[2 + len(_COMMENT) :]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return content.endswith(bytes(2)) and not archive.comment and archive.testzip() is None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError):
        return False
