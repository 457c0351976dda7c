"""What all integrations' tests share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def exact_lstms(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN's LSTM multiplies in TF32 unless told otherwise: an error of 5e-4, whatever is compared with it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
