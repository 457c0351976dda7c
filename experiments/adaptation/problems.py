"""Bandits and tabular MDPs drawn from a prior, many at a time: their dynamics and their best values."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Problems(Protocol):
    """N problems, each drawn from the same prior."""

    def draw(self, rows: Array, rng: np.random.Generator) -> None:
        """Put new problems in the place of some."""
        ...

    def regrets(self, situation: tuple[Array, ...], actions: Array) -> Array:
        """Expected regret [N] of actions [N]; see ``TrialVectorEnv.regrets``."""
        ...


class Bandits:
    """Bernoulli bandits whose arms' probabilities are uniform on [0, 1]."""

    def __init__(self, number: int, arms: int) -> None:
        """``number`` bandits with ``arms`` arms each, not drawn yet."""
        self.arms = arms
        self.probabilities = np.zeros((number, arms))
        """Of the reward 1, [N, arms]."""
        self._rows = np.arange(number)

    def draw(self, rows: Array, rng: np.random.Generator) -> None:
        self.probabilities[rows] = rng.random((len(rows), self.arms))

    def pull(self, actions: Array, rng: np.random.Generator) -> Array:
        """Rewards of pulling arms [N]: float32 [N], 0 or 1."""
        return (rng.random(len(actions)) < self.probabilities[self._rows, actions]).astype(np.float32)

    def regrets(self, situation: tuple[Array, ...], actions: Array) -> Array:
        return self.probabilities.max(axis=1) - self.probabilities[self._rows, actions]


class TabularMDPs:
    """MDPs with means of rewards from N(1, 1), rewards of variance 1, and next states from a flat Dirichlet prior."""

    def __init__(self, number: int, states: int, actions: int, horizon: int) -> None:
        """``number`` MDPs of so many states and actions, played ``horizon`` steps from state 0; not drawn yet."""
        self.states, self.actions, self.horizon = states, actions, horizon
        self.means = np.zeros((number, states, actions))
        """Expected rewards [N, S, A]."""
        self.transitions = np.zeros((number, states, actions, states))
        """Probabilities [N, S, A, S] of the next state."""
        self._cumulative = np.zeros_like(self.transitions)
        self._rows = np.arange(number)
        self._best: Array | None = None

    def draw(self, rows: Array, rng: np.random.Generator) -> None:
        shape = (len(rows), self.states, self.actions)
        self.means[rows] = rng.normal(1, 1, shape)
        self.transitions[rows] = drawn = dirichlet(np.ones((*shape, self.states)), rng)
        self._cumulative[rows] = drawn.cumsum(axis=-1)
        self._best = None

    def move(self, states: Array, actions: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Rewards float32 [N] and next states int64 [N] of taking actions [N] in states [N]."""
        noise, chance = rng.standard_normal(len(states)), rng.random((len(states), 1))
        rewards = (self.means[self._rows, states, actions] + noise).astype(np.float32)
        # All but the last: its cumulative probability is 1 but for rounding.
        following = (chance >= self._cumulative[self._rows, states, actions, :-1]).sum(axis=1)
        return rewards, following

    @property
    def best(self) -> Array:
        """Values [N, horizon, S, A] of the best policy, computed once for each set of problems."""
        if self._best is None:
            self._best = plan(self.means, self.transitions, self.horizon)
        return self._best

    def regrets(self, situation: tuple[Array, ...], actions: Array) -> Array:
        times, states = situation
        values = self.best[self._rows, times, states]
        return values.max(axis=1) - values[self._rows, actions]


def plan(means: Array, transitions: Array, horizon: int) -> Array:
    """Value iteration over a finite horizon, undiscounted.

    Args:
        means: expected rewards [N, S, A].
        transitions: probabilities [N, S, A, S] of the next state.
        horizon: H, steps.

    Returns:
        [N, H, S, A]: expected return from step h on of an action, where the best ones follow.
    """
    number, states, actions = means.shape
    flat = transitions.reshape(number, states * actions, states)
    values = np.zeros((number, horizon, states, actions))
    following = np.zeros((number, states))
    for step in reversed(range(horizon)):
        values[:, step] = means + (flat @ following[:, :, None]).reshape(means.shape)
        following = values[:, step].max(axis=-1)
    return values


def dirichlet(concentrations: Array, rng: np.random.Generator) -> Array:
    """Draws from Dirichlet distributions over the last axis, for concentrations [..., K] above zero: [..., K]."""
    gammas = rng.standard_gamma(concentrations)
    return gammas / gammas.sum(axis=-1, keepdims=True)
