"""How far an SRWM's state gets from zero with untrained weights, by the settings that bear on it.

    python -m experiments.procgen.state_growth

A layer of the RL agents' size (8 heads of 16) reads inputs that drift as features of a game do: a constant and a slow
noise, both of unit variance, correlation .9 from step to step. Writes ``growth.json``: the size of W_y's shift
in units of W_y's own after 8, 32, 128, 512 and 1,024 steps, the mean over eight sequences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from srwm_agents.layers import SRWMLayer

FILE = Path(__file__).parent / "growth.json"
STEPS = (8, 32, 128, 512, 1024)
SEQUENCES, WIDTH, HEADS, CORRELATION = 8, 128, 8, 0.9
RAW: dict[str, Any] = {"input_softmax": False, "input_norm": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "as published, state_decay .95": {"state_decay": 0.95},
    "layer norm for softmax": RAW,
    "layer norm for softmax, state_decay .99": {**RAW, "state_decay": 0.99},
    "layer norm for softmax, state_decay .95": {**RAW, "state_decay": 0.95},
    "layer norm for softmax, state_decay .9": {**RAW, "state_decay": 0.9},
    "layer norm for softmax, unit_keys": {**RAW, "unit_keys": True},
    "layer norm for softmax, unit_keys, state_decay .95": {**RAW, "unit_keys": True, "state_decay": 0.95},
}


@torch.no_grad()
def growth(settings: dict[str, Any]) -> list[float]:
    """The shift's relative size at each of ``STEPS``."""
    torch.manual_seed(1)
    layer = SRWMLayer(WIDTH, HEADS, **settings).eval()
    state = tuple(torch.zeros(SEQUENCES, *shape) for shape in layer.state_shapes)
    constant, noise = torch.randn(2, SEQUENCES, WIDTH)
    sizes = []
    for step in range(1, STEPS[-1] + 1):
        noise = CORRELATION * noise + (1 - CORRELATION**2) ** 0.5 * torch.randn(SEQUENCES, WIDTH)
        _, state = layer((constant + noise)[:, None], state, None)
        if step in STEPS:
            sizes.append(float(state[0].flatten(1).norm(dim=1).mean() / layer.w_y.norm()))
    return sizes


def main() -> None:
    torch.set_num_threads(1)
    result = {"steps": STEPS, "shift": {name: growth(settings) for name, settings in SETTINGS.items()}}
    FILE.write_text(json.dumps(result, indent=1) + "\n")
    for name, sizes in result["shift"].items():
        print(f"{name:42}", *(f"{size:8.3f}" for size in sizes))


if __name__ == "__main__":
    main()
