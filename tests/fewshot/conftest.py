"""Small data sets on disk and in memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srwm_agents.fewshot.bank import ImageBank
from srwm_agents.fewshot.data import ImageSet


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Function that makes the bytes of an image of one colour."""

    def make(value: int = 0, size: int = 20, mode: str = "L", kind: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, (size, size), (value,) * 3 if mode == "RGB" else value).save(buffer, kind)
        return buffer.getvalue()

    return make


@pytest.fixture
def lay_out(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes files (path -> bytes) as a folder, or as ``zip_name`` in it, and returns the data_dir."""

    def write(files: dict[str, bytes], zip_name: str | None = None) -> Path:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        if zip_name is not None:
            with zipfile.ZipFile(data_dir / zip_name, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
            return data_dir
        for name, content in files.items():
            (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (data_dir / name).write_bytes(content)
        return data_dir

    return write


def numbered_images(name: str = "numbers", counts: tuple[int, ...] = (6,) * 8, side: int = 16) -> ImageSet:
    """Images whose top left pixel is the class and whose next pixel to the right is the number within the class."""
    images = np.zeros((sum(counts), 1, side, side), np.uint8)
    images[:, 0, 0, 0] = np.repeat(np.arange(len(counts)), counts)
    images[:, 0, 0, 1] = np.concatenate([np.arange(count) for count in counts])
    return ImageSet(name, "train", images, tuple(map(str, range(len(counts)))), counts, (0.0,), (1.0,))


@pytest.fixture
def numbered() -> Callable[..., ImageSet]:
    return numbered_images


@pytest.fixture
def bank() -> ImageBank:
    return ImageBank(numbered_images())


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
