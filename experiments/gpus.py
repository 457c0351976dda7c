"""The GPUs that a study may use."""

from __future__ import annotations

import os

import torch


def visible_gpus() -> list[str]:
    """The GPUs of this process, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [*map(str, range(torch.cuda.device_count()))]
