"""Evaluation of saved agents: episodes, statistics, reports, plots."""

from srwm_agents.evaluation.curves import plot_curves
from srwm_agents.evaluation.rollouts import Forgetful, Policy, RandomPolicy, play_episodes
from srwm_agents.evaluation.splits import Split, make_splits
from srwm_agents.evaluation.statistics import aggregate, per_game

__all__ = [
    "Forgetful",
    "Policy",
    "RandomPolicy",
    "Split",
    "aggregate",
    "make_splits",
    "per_game",
    "play_episodes",
    "plot_curves",
]
