"""What only memory solves, in SB3: CartPole that hides its velocities, with the benchmark's own code and settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "benchmarks/sb3_cartpole.py"
SEED = 4
STEPS = {"srwm": 150_000, "PPO MlpPolicy": 10_000}
"""At most; the SRWM stops when it has solved the task, after a sixth to a quarter of that (docs/integrations.md)."""


@pytest.mark.slow
def test_an_srwm_balances_a_pole_whose_velocity_it_cannot_see(tmp_path) -> None:
    spec = importlib.util.spec_from_file_location("sb3_cartpole", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    scores = {}
    for method, steps in STEPS.items():
        best = benchmark.BestModel(tmp_path / method, SEED)
        model, _ = benchmark.train(method, steps, SEED, best)
        scores[method], _ = benchmark.evaluate(*best.restore(model), episodes=20)
    # Without memory the best is to fall slowly: about 44, whatever the training, and far below 65 in the mean of 20.
    assert scores["PPO MlpPolicy"] <= 65
    assert scores["srwm"] >= 450
