"""Files with a SHA-256 of their own: one changed bit anywhere is noticed, and other programs read them as ever."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from srwm_agents.checksums import (
    DIGEST_KEY,
    AlteredError,
    is_unaltered,
    load_torch_file,
    safetensors_with_digest,
    torch_file_with_digest,
)

CONTENT = {"weights": torch.arange(60.0).view(5, 12), "rows": [1, {"loss": 2.5}], "rng": torch.zeros(9).byte()}


def changed(content: bytes, bit: int) -> bytes:
    altered = bytearray(content)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def test_torch_files(tmp_path: Path) -> None:
    file, content = tmp_path / "checkpoint.pt", torch_file_with_digest(CONTENT)
    file.write_bytes(content)
    for read in (load_torch_file(file), torch.load(file, weights_only=True)):
        assert read["rows"] == CONTENT["rows"]
        assert torch.equal(read["weights"], CONTENT["weights"])
    bits = 8 * len(content)
    for bit in [*range(0, bits, 97), *range(bits - 8 * 80, bits)]:  # the comment with the digest stands at the end
        file.write_bytes(changed(content, bit))
        with pytest.raises(AlteredError, match="SHA-256"):
            load_torch_file(file)
    for length in (0, 1, 100, len(content) - 73, len(content) - 71, len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(AlteredError, match="truncated or altered"):
            load_torch_file(file)


def test_torch_files_of_earlier_versions_have_crcs(tmp_path: Path) -> None:
    """A changed bit is refused, by one check or the other, or stands where nothing is."""
    file, rng, refused = tmp_path / "checkpoint.pt", random.Random(0), 0
    torch.save(CONTENT, file)
    content = file.read_bytes()
    assert load_torch_file(file)["rows"] == CONTENT["rows"]
    for _ in range(300):
        file.write_bytes(changed(content, rng.randrange(8 * len(content))))
        try:
            read = load_torch_file(file)
        except Exception:  # of a damaged file, PyTorch raises many kinds
            refused += 1
        else:
            assert read["rows"] == CONTENT["rows"]
            assert torch.equal(read["weights"], CONTENT["weights"])
    assert refused > 150


def test_safetensors_files() -> None:
    metadata = {"about": 'a quoted "sha256":"0000"', "format": "2"}
    content = safetensors_with_digest({"weights": torch.ones(3, 4)}, metadata)
    assert torch.equal(load(content)["weights"], torch.ones(3, 4))
    start = content.index(f'"{DIGEST_KEY}":"'.encode()) + len(DIGEST_KEY) + 4
    digest = content[start : start + 64].decode()
    assert is_unaltered(content, digest)
    for bit in range(0, 8 * len(content), 3):
        if not start <= bit // 8 < start + 64:
            assert not is_unaltered(changed(content, bit), digest)
