"""The agents and classifiers of this repository load and act as when they were trained.

``shipped_agents.json`` holds what commit 13e1812 made of the same inputs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from srwm_agents import load_agent
from srwm_agents.fewshot import load_classifier

ROOT = Path(__file__).parent.parent
BEFORE = json.loads(Path(__file__).with_name("shipped_agents.json").read_text())


def summary(state: torch.Tensor) -> list[float]:
    return [state.sum().item(), state.square().sum().item()]


def of_agent(folder: Path) -> dict[str, Any]:
    agent, g = load_agent(folder), torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 9, 3, 64, 64), generator=g, dtype=torch.uint8)
    observation = {"obs": images, "last_reward": torch.randn(2, 9, 1, generator=g)}
    resets = torch.zeros(2, 9, dtype=torch.bool)
    resets[0, 0] = resets[1, 5] = True
    with torch.no_grad():
        before = 0.05 * torch.randn(2, agent.core.state_size, generator=g)
        logits, values, state = agent(observation, before, resets)
    return {"logits": logits[:, -1].tolist(), "values": values.tolist(), "state": summary(state)}


def of_classifier(folder: Path) -> dict[str, Any]:
    classifier, g = load_classifier(folder), torch.Generator().manual_seed(0)
    ways, shape = classifier.config.ways, classifier.config.image_shape
    memory = classifier.learn(torch.randint(256, (ways, *shape), generator=g, dtype=torch.uint8), torch.arange(ways))
    asked = torch.randint(256, (3, *shape), generator=g, dtype=torch.uint8)
    return {"probabilities": classifier.predict(asked, memory).tolist(), "state": summary(memory.state)}


@pytest.mark.parametrize("name", BEFORE)
def test_what_was_saved_acts_as_before(name: str) -> None:
    make = of_classifier if name.startswith("agents/fewshot") else of_agent
    now = make(ROOT / name)
    assert now.keys() == BEFORE[name].keys()
    for part, values in BEFORE[name].items():
        # float32 on another machine or thread count: sums in another order.
        torch.testing.assert_close(torch.tensor(now[part]), torch.tensor(values), rtol=1e-3, atol=1e-4)
