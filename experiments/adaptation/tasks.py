"""The bandits and MDPs of Duan et al. (2016) by name, groups of them, and the totals that the paper reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MODULE = "experiments.adaptation.environments"
LONGEST_ROLLOUT = 125
"""Steps that a rollout has where a trial is longer: it divides the trials of 250 to 1,000 steps."""


@dataclass(frozen=True)
class Task:
    """One environment with its settings."""

    env: str
    """As ``--env`` takes it."""
    kwargs: dict[str, int]
    steps: int
    """Of a trial."""

    @property
    def flags(self) -> dict[str, Any]:
        """Of ``train_rl.py``: what is played; and rollouts that are whole trials, or equal parts of them.

        Trials of ten steps keep the recipe's rollouts, which are several trials long.
        """
        flags: dict[str, Any] = {"env": self.env, "env_kwargs": self.kwargs}
        if self.steps < 50:
            return flags
        rollout = min(self.steps, LONGEST_ROLLOUT)
        return {**flags, "rollout": rollout, "batch_size": 64 * rollout}

    @property
    def is_bandit(self) -> bool:
        """Whether it is a bandit, else a tabular MDP."""
        return "arms" in self.kwargs

    @property
    def title(self) -> str:
        """The task in words, for tables and pictures."""
        if self.is_bandit:
            return f"{self.kwargs['arms']} arms, {self.kwargs['pulls']} pulls"
        return f"tabular MDP, {self.kwargs['episodes']} episodes"


BANDITS = {
    f"bandit_{arms}_{pulls}": Task(f"{MODULE}:Bandit-v0", {"arms": arms, "pulls": pulls}, pulls)
    for pulls in (10, 100, 500)
    for arms in (5, 10, 50)
}
MDPS = {
    f"mdp_{episodes}": Task(f"{MODULE}:TabularMDP-v0", {"episodes": episodes}, 10 * episodes)
    for episodes in (10, 25, 50, 75, 100)
}
TASKS = BANDITS | MDPS
"""The paper's fourteen settings: ``bandit_ARMS_PULLS`` and ``mdp_EPISODES``."""
GROUPS: dict[str, list[str]] = {
    "first": ["bandit_5_10", "bandit_10_100"],
    "bandits": list(BANDITS),
    "mdps": list(MDPS),
    "all": list(TASKS),
}

_PUBLISHED_BANDITS = ("random", "thompson", "ucb1", "epsilon_greedy", "greedy", "rl2")
_PUBLISHED_MDPS = ("random", "psrl", "epsilon_greedy", "greedy", "rl2")
_TOTALS = {
    "bandit_5_10": (5.0, 5.7, 6.7, 6.6, 6.6, 6.7),
    "bandit_10_10": (5.0, 5.5, 6.7, 6.6, 6.6, 6.7),
    "bandit_50_10": (5.1, 5.2, 6.6, 6.5, 6.5, 6.8),
    "bandit_5_100": (49.9, 74.7, 78.0, 75.4, 74.8, 78.7),
    "bandit_10_100": (49.9, 76.7, 82.4, 77.4, 77.1, 83.5),
    "bandit_50_100": (49.8, 64.5, 84.3, 78.3, 78.0, 84.9),
    "bandit_5_500": (249.8, 402.0, 405.8, 388.2, 380.6, 401.6),
    "bandit_10_500": (249.0, 429.5, 437.1, 408.0, 395.0, 432.5),
    "bandit_50_500": (249.6, 427.2, 457.6, 413.6, 402.8, 438.9),
    "mdp_10": (100.1, 138.1, 132.8, 134.8, 156.2),
    "mdp_25": (250.2, 408.8, 377.3, 368.8, 445.7),
    "mdp_50": (499.7, 904.4, 823.3, 769.3, 936.1),
    "mdp_75": (749.9, 1417.1, 1293.9, 1172.9, 1428.8),
    "mdp_100": (999.4, 1939.5, 1778.2, 1578.5, 1913.7),
}
PUBLISHED: dict[str, dict[str, float]] = {
    task: dict(zip(_PUBLISHED_BANDITS if task in BANDITS else _PUBLISHED_MDPS, totals, strict=True))
    for task, totals in _TOTALS.items()
}
"""Mean total reward of a trial over 1,000 problems: Duan et al. 2016, tables 1 and 2 (second-hand: a transcription of
the paper). "rl2" is their GRU."""
