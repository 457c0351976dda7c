"""Algorithms that play bandits and tabular MDPs without training, many at a time; they know how problems are drawn.

After Duan et al., arXiv:1611.02779, 2016, sections 3.1 and 3.2. UCB1's constant and the epsilons are, as there, the
best of a grid for each setting, chosen here on problems of their own (:func:`players`). Of the paper's algorithms,
Gittins indices, UCRL2, BEB and the optimistic variants are left out.

Beside the paper's totals: README.md in this folder.

Each is made with the environment and a random generator when trials begin, and sees what an agent sees:

    player = Thompson(env, rng)
    actions = player.act(observation)
    player.see(actions, rewards, observation)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from experiments.adaptation.environments import BanditVectorEnv, TabularMDPVectorEnv, TrialVectorEnv
from experiments.adaptation.problems import dirichlet, plan

Array = npt.NDArray[Any]


class Player(Protocol):
    """N trials' player."""

    def act(self, observation: Array) -> Array:
        """Actions int64 [N] for an observation [N, width]."""
        ...

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        """What the environment's step with these actions [N] gave: rewards [N] and the next observation [N, width]."""
        ...


Maker = Callable[[Any, np.random.Generator], Player]
"""A player for an environment whose trials have just begun."""


class Random:
    """Actions drawn uniformly."""

    def __init__(self, env: TrialVectorEnv, rng: np.random.Generator) -> None:
        self._shape, self._rng = (env.num_envs, int(env.single_action_space.n)), rng  # type: ignore[attr-defined]

    def act(self, observation: Array) -> Array:
        number, actions = self._shape
        return self._rng.integers(actions, size=number)

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        """Nothing is learned."""


class _BanditPlayer:
    """Counts of successes and failures of each arm, which begin at 1 and 1: the uniform prior, Beta(1, 1)."""

    def __init__(self, env: BanditVectorEnv, rng: np.random.Generator) -> None:
        self.rng = rng
        self.successes = np.ones((env.num_envs, env.problems.arms))
        self.failures = np.ones_like(self.successes)
        self.pulls = 0
        self.rows = np.arange(env.num_envs)

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        self.successes[self.rows, actions] += rewards
        self.failures[self.rows, actions] += 1 - rewards
        self.pulls += 1

    @property
    def means(self) -> Array:
        """Posterior means [N, arms]."""
        return self.successes / (self.successes + self.failures)


class Thompson(_BanditPlayer):
    """Thompson sampling (Thompson, 1933): the best arm of a draw from the posterior."""

    def act(self, observation: Array) -> Array:
        return self.rng.beta(self.successes, self.failures).argmax(axis=1)


class UCB1(_BanditPlayer):
    """The arm with the largest mean + c sqrt(2 log t / T) at the t-th pull, from 1 (Auer et al., 2002: c = 1).

    As Duan et al. have it: means and numbers of pulls T count one success and one failure beforehand, so that not
    every arm must be pulled once, and c is tuned.
    """

    def __init__(self, env: BanditVectorEnv, rng: np.random.Generator, constant: float = 1.0) -> None:
        super().__init__(env, rng)
        self._constant = constant

    def act(self, observation: Array) -> Array:
        times = self.successes + self.failures
        return (self.means + self._constant * np.sqrt(2 * np.log(self.pulls + 1) / times)).argmax(axis=1)


class GreedyArms(_BanditPlayer):
    """The arm with the largest posterior mean; with probability ``epsilon`` any arm."""

    def __init__(self, env: BanditVectorEnv, rng: np.random.Generator, epsilon: float = 0.0) -> None:
        super().__init__(env, rng)
        self._epsilon = epsilon

    def act(self, observation: Array) -> Array:
        return _explored(self.means.argmax(axis=1), self.means.shape[1], self._epsilon, self.rng)


class BestArm:
    """Knows the arms: no regret."""

    def __init__(self, env: BanditVectorEnv, rng: np.random.Generator) -> None:
        self._env = env

    def act(self, observation: Array) -> Array:
        return self._env.problems.probabilities.argmax(axis=1)

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        """Nothing is left to learn."""


class _MDPPlayer:
    """Follows one plan for each episode of the paper, made when it begins from what has been seen before.

    Posterior of means: normal, from N(1, 1) and rewards of variance 1. Posterior of transitions: Dirichlet, from 1 a
    state.
    """

    def __init__(self, env: TabularMDPVectorEnv, rng: np.random.Generator) -> None:
        self._env, self.rng = env, rng
        problems = env.problems
        shape = (env.num_envs, problems.states, problems.actions)
        self.visits, self.sums = np.zeros(shape), np.zeros(shape)
        self.moves = np.zeros((*shape, problems.states))
        self._time = 0
        self._plan: Array = np.zeros(0)
        self._states = np.zeros(env.num_envs, np.int64)
        self._rows = np.arange(env.num_envs)

    def act(self, observation: Array) -> Array:
        if self._time == 0:
            self._plan = plan(*self.believed(), self._env.problems.horizon)
        self._states = _states(observation, self._env)
        values = self._plan[self._rows, self._time, self._states]
        return self.chosen(values.argmax(axis=1))

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        where = self._rows, self._states, actions
        self.visits[where] += 1
        self.sums[where] += rewards
        self._time = (self._time + 1) % self._env.problems.horizon
        # Where an episode ends the environment is at the first state again: what the last step led to is not seen.
        if self._time:
            self.moves[(*where, _states(observation, self._env))] += 1

    def chosen(self, best: Array) -> Array:
        """The actions [N] to take, where the plan's are ``best`` [N]."""
        return best

    def believed(self) -> tuple[Array, Array]:
        """Means [N, S, A] and transitions [N, S, A, S] to plan with."""
        raise NotImplementedError

    @property
    def means(self) -> Array:
        """Posterior means of the expected rewards [N, S, A]; their variances are 1 / (1 + visits)."""
        return (1 + self.sums) / (1 + self.visits)


class PSRL(_MDPPlayer):
    """Posterior sampling (Strens, 2000; Osband et al., 2013): the best policy of a draw from the posterior."""

    def believed(self) -> tuple[Array, Array]:
        noise = self.rng.standard_normal(self.visits.shape)
        return self.means + noise / np.sqrt(1 + self.visits), dirichlet(1 + self.moves, self.rng)


class GreedyMDP(_MDPPlayer):
    """The best policy of the likeliest MDP (maximum a posteriori); with probability ``epsilon`` any action.

    The likeliest transitions are the observed frequencies. Where nothing has been observed all are equally likely:
    there, the mean (our choice; the paper does not say).
    """

    def __init__(self, env: TabularMDPVectorEnv, rng: np.random.Generator, epsilon: float = 0.0) -> None:
        super().__init__(env, rng)
        self._epsilon = epsilon

    def believed(self) -> tuple[Array, Array]:
        seen = self.moves.sum(axis=-1, keepdims=True)
        frequencies = np.where(seen > 0, self.moves / np.maximum(seen, 1), 1 / self._env.problems.states)
        return self.means, frequencies

    def chosen(self, best: Array) -> Array:
        return _explored(best, self._env.problems.actions, self._epsilon, self.rng)


class BestPolicy:
    """Knows the MDPs and follows value iteration: no regret."""

    def __init__(self, env: TabularMDPVectorEnv, rng: np.random.Generator) -> None:
        self._env = env
        self._time = 0

    def act(self, observation: Array) -> Array:
        rows = np.arange(self._env.num_envs)
        return self._env.problems.best[rows, self._time, _states(observation, self._env)].argmax(axis=1)

    def see(self, actions: Array, rewards: Array, observation: Array) -> None:
        self._time = (self._time + 1) % self._env.problems.horizon


def _states(observation: Array, env: TabularMDPVectorEnv) -> Array:
    """The states int64 [N] that an observation shows."""
    return observation[:, : env.problems.states].argmax(axis=1)


def _explored(best: Array, number: int, epsilon: float, rng: np.random.Generator) -> Array:
    """``best`` [N], each in its place with probability ``epsilon`` any of ``number`` actions."""
    if epsilon == 0:
        return best
    return np.where(rng.random(len(best)) < epsilon, rng.integers(number, size=len(best)), best)


BANDIT_PLAYERS: Mapping[str, Maker] = {"random": Random, "greedy": GreedyArms, "thompson": Thompson, "best": BestArm}
MDP_PLAYERS: Mapping[str, Maker] = {"random": Random, "greedy": GreedyMDP, "psrl": PSRL, "best": BestPolicy}
"""Players without a number to choose, by name."""

GRIDS: Mapping[str, tuple[Any, Sequence[float]]] = {
    "ucb1": (UCB1, (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)),
    "epsilon_greedy": (GreedyArms, (0.01, 0.02, 0.05, 0.1, 0.2)),
}
MDP_GRIDS: Mapping[str, tuple[Any, Sequence[float]]] = {
    "epsilon_greedy": (GreedyMDP, (0.01, 0.02, 0.05, 0.1, 0.2)),
}
"""Players with a number to choose, and what it is chosen from (our grids; the paper does not say its own)."""


def players(env: TrialVectorEnv, total: Callable[[Maker], float]) -> dict[str, tuple[Maker, float | None]]:
    """All players of an environment's kind, those with a number tuned: name to player and number.

    Args:
        env: whose kind it is.
        total: a player's mean total reward in the same setting, on problems that are not those of the comparison.
    """
    mdp = isinstance(env, TabularMDPVectorEnv)
    found: dict[str, tuple[Maker, float | None]] = {
        name: (maker, None) for name, maker in (MDP_PLAYERS if mdp else BANDIT_PLAYERS).items()
    }
    for name, (kind, grid) in (MDP_GRIDS if mdp else GRIDS).items():
        makers = {number: _with_number(kind, number) for number in grid}
        number = max(grid, key=lambda number: total(makers[number]))
        found[name] = (makers[number], number)
    return found


def _with_number(kind: Any, number: float) -> Maker:
    name = "constant" if kind is UCB1 else "epsilon"
    return partial(kind, **{name: number})
