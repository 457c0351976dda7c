"""Shared by all tests."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when Triton is first imported, which any test may do: kernels then run in its interpreter.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Tests run side by side on few cores; threads of one, or of a process that it starts, would wait for those of another.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Side by side in one place, those that start clusters of several processes are one worker's, one after another.
    items.sort(key=lambda item: "cluster" not in item.keywords)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
