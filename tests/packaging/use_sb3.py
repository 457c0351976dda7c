"""Stable-Baselines3 with our memory, in a project that has the extra ``sb3`` alone."""

from __future__ import annotations

import gymnasium
import numpy as np
from sb3_contrib import RecurrentPPO

import srwm_agents

if __name__ == "__main__":
    srwm_agents.register("sb3")
    model = RecurrentPPO("SRWMMlpPolicy", gymnasium.make("CartPole-v1"), n_steps=32, batch_size=32, n_epochs=1)
    model.learn(64)
    print(f"RecurrentPPO learned with our memory: gymnasium {gymnasium.__version__}, NumPy {np.__version__}")
