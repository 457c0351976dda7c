"""Shared by all tests."""

from __future__ import annotations

import pytest
import torch

# Tests run side by side on few cores; threads of one would wait for those of another.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)
