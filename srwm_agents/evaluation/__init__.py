"""Evaluation of saved agents: episodes, statistics, reports, plots."""

from srwm_agents.extras import require

require("eval", "gymnasium", "pandas", "scipy")

from srwm_agents.evaluation.curves import plot_curves  # noqa: E402
from srwm_agents.evaluation.rollouts import Forgetful, Policy, RandomPolicy, play_episodes  # noqa: E402
from srwm_agents.evaluation.splits import Split, make_splits  # noqa: E402
from srwm_agents.evaluation.statistics import aggregate, per_game  # noqa: E402

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
