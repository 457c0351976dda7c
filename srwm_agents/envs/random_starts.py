"""Random actions at the beginning of each episode, so that a level is learned from many of its states."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from srwm_agents.envs.games import NUM_ACTIONS

Array = npt.NDArray[Any]

MAX_STEPS = 10_000
"""Largest allowed number of random steps, more than an episode of any game has."""
_KEEP = 0.75
"""Probability of repeating a random action: 4 steps on average."""


class RandomStarts:
    """Replaces the actions of each episode's first k steps by random ones, k drawn anew for each from 0 to a bound.

    Source: Weltevrede et al., "Exploration Implies Data Augmentation" (arXiv:2410.03565), Explore-Go. Deviations: the
    exploring policy is not trained but random, with repeated actions (independent ones would hardly leave the initial
    state); and an episode may end within its k steps, after which the next one draws its own k.
    """

    def __init__(self, longest: Array, seed: int) -> None:
        """``longest`` [N]: the bound on k of each environment; 0: no random actions."""
        self._longest = longest
        self._random = np.random.default_rng(seed)
        self._left = np.zeros(len(longest), np.int64)
        self._actions = np.zeros(len(longest), np.int64)
        self.restart(np.ones(len(longest), bool))

    def restart(self, begun: Array) -> None:
        """Draw a new k where ``begun`` [N] is True."""
        drawn = self._random.integers(0, self._longest, endpoint=True)
        self._left = np.where(begun, drawn, self._left)

    @property
    def exploring(self) -> Array:
        """[N], True where the next action will be replaced."""
        return self._left > 0

    def replace(self, actions: Array) -> Array:
        """Replace ``actions`` [N] of one step by random ones where ``exploring``."""
        drawn = self._random.integers(NUM_ACTIONS, size=len(actions))
        keep = self._random.random(len(actions)) < _KEEP
        self._actions = np.where(keep, self._actions, drawn)
        taken = np.where(self.exploring, self._actions, actions)
        self._left = np.maximum(self._left - 1, 0)
        return taken


def check_random_starts(random_starts: dict[str, int], games: list[str]) -> None:
    """Raise ``ValueError`` for a game that is not in ``games``, or an invalid number of steps."""
    for game, steps in random_starts.items():
        if game not in games:
            raise ValueError(f"random_starts names {game!r}, but the games are: {', '.join(games)}")
        if not isinstance(steps, int) or not 0 <= steps <= MAX_STEPS:
            raise ValueError(f"random_starts has {steps!r} for {game}, expected a whole number from 0 to {MAX_STEPS}")
