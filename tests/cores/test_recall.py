"""What only memory solves: recall a cue after distraction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from srwm_agents.cores import make_core

CUES, STEPS, CHANCE = 4, 8, 0.25


def episodes(number: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """x [number, STEPS, CUES + 2]: a one-hot cue, then noise, then the signal to answer; and the cues."""
    cues = torch.randint(CUES, (number,), generator=generator)
    x = torch.zeros(number, STEPS, CUES + 2)
    x[torch.arange(number), 0, cues] = 1
    x[:, 1:-1, CUES] = torch.randn(number, STEPS - 2, generator=generator)
    x[:, -1, CUES + 1] = 1
    return x, cues


def trained_accuracy(name: str, updates: int, enough: float = 1.0, **settings: Any) -> float:
    """Accuracy on 1,000 fresh episodes after training on 64 an update; looked at every 50 updates, until ``enough``."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    sizes = {"input_size": CUES + 2, "hidden_size": 32, "num_layers": 1, "num_heads": 4, "ff_size": 64}
    core = make_core(name, **sizes, **settings)
    head = torch.nn.Linear(core.output_size, CUES)
    optimizer = torch.optim.Adam([*core.parameters(), *head.parameters()], lr=3e-3)
    accuracy = 0.0
    for update in range(1, updates + 1):
        x, cues = episodes(64, generator)
        out, _ = core(x, core.initial_state(64))
        optimizer.zero_grad()
        F.cross_entropy(head(out[:, -1]), cues).backward()
        optimizer.step()
        if update % 50 == 0:
            with torch.no_grad():
                x, cues = episodes(1000, generator)
                out, _ = core(x, core.initial_state(1000))
            accuracy = (head(out[:, -1]).argmax(-1) == cues).float().mean().item()
            if accuracy >= enough:
                break
    return accuracy


@pytest.mark.parametrize(
    ("name", "updates"),
    [("srwm", 500)]
    + [
        pytest.param(name, 500, marks=pytest.mark.slow)
        for name in ("sr_delta", "delta", "lstm", "gru", "min_gru", "gated_delta", "shm", "ffm", "mlstm")
    ]
    + [pytest.param("introspective", 200, marks=pytest.mark.slow)],
)
def test_cores_with_memory_recall_the_cue(name: str, updates: int) -> None:
    assert trained_accuracy(name, updates, enough=0.95) >= 0.95


@pytest.mark.slow
def test_keys_of_length_one_recall_sooner() -> None:
    """A soft key of sum 1 has little length, so that a write changes little."""
    assert trained_accuracy("srwm", 150, enough=0.95) < 0.5
    assert trained_accuracy("srwm", 150, enough=0.95, unit_keys=True) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fake_sr", "feedforward"])
def test_cores_without_memory_stay_at_chance(name: str) -> None:
    # 1,000 answers at chance have a standard deviation of 0.014; five of them are allowed.
    assert abs(trained_accuracy(name, updates=500) - CHANCE) < 0.07
