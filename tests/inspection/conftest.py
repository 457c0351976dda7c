"""Small agents, and one recording that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srwm_agents import Agent, AgentConfig, save_agent
from srwm_agents.inspection import Recorder, Recording

SETTINGS = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ff_size": 16}


def make_procgen_agent(folder: Path, core: str = "srwm", **changes: Any) -> Agent:
    """An untrained agent for two of Procgen's games, saved in ``folder``."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "core": core,
        "core_settings": SETTINGS,
        "num_actions": 15,
        "encoder": "convnet_impala",
        "environment": {
            "games": ["starpilot", "leaper"],
            "distribution_mode": "easy",
            "num_levels": 20,
            "start_level": 0,
        },
    }
    agent = Agent(AgentConfig(**{**config, **changes})).eval()
    save_agent(agent, folder)
    return agent


def record(agent: Agent, steps: int = 20, rows: int = 2) -> Recording:
    """Random observations for an agent that sees three numbers; episodes end after ten steps."""
    generator = np.random.default_rng(0)
    names = [f"game {row}" for row in range(rows)]
    state, starts = None, np.ones(rows, bool)
    with Recorder(agent, rows=range(rows), names=names, max_steps=steps, frames_per_second=10.0) as recorder:
        for step in range(steps):
            seen = generator.normal(size=(rows, 3)).astype(np.float32)
            actions, state = agent.act({"obs": seen}, state, resets=starts, deterministic=False)
            starts = np.full(rows, step % 10 == 9)
            screens = generator.integers(0, 255, (rows, 24, 24, 3)).astype(np.uint8)
            recorder.step(np.full(rows, step % 3), starts, actions=actions, screens=screens, observations=seen)
    recorder.recording.about = "Noise, for tests."
    return recorder.recording


@pytest.fixture(scope="session")
def make_vector_agent() -> Callable[..., Agent]:
    """Function that makes an untrained agent that sees three numbers and has four actions."""

    def make(core: str = "srwm", **changes: Any) -> Agent:
        torch.manual_seed(0)
        config = {"core": core, "core_settings": SETTINGS, "num_actions": 4, "image_shape": (), "extras": {"obs": 3}}
        return Agent(AgentConfig(**{**config, **changes})).eval()  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def recording(make_vector_agent) -> Recording:
    """Two tracks of 20 steps."""
    return record(make_vector_agent())
