"""``Bandit-v0`` and ``TabularMDP-v0``: Bernoulli bandits and tabular MDPs that are drawn anew for each episode.

    python train_rl.py --preset popgym --env experiments.adaptation.environments:Bandit-v0 \\
        --env_kwargs '{"arms": 10, "pulls": 100}'

Source: Duan et al., "RL²: Fast Reinforcement Learning via Slow Reinforcement Learning", arXiv:1611.02779, 2016,
sections 3.1 and 3.2. What the paper calls a trial (n episodes in one problem, over which the agent keeps its memory)
is one episode here: an agent's memory is cleared at an episode's end, and its return is that of the whole trial.

An observation has all that the paper's policy is given: the state, the last action, the last reward, and whether an
episode of the trial begins. Rewards are there as they are, since the trainer's own ``last_reward`` is clipped to ±1.
Deviations: at a trial's first step the last action is no action (zeros) where the authors' code has action 0; a
bandit's observation has no flag and no state, which would be constant.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from experiments.adaptation.problems import Bandits, Problems, TabularMDPs
from srwm_agents.envs.compatibility import AUTORESET, FINAL_OBSERVATION, VectorEnv

Array = npt.NDArray[Any]


class TrialVectorEnv(VectorEnv):
    """N trials side by side, each in a problem of its own, with same-step autoreset.

    Observations are float32 [N, width], actions int64 [N]. A trial always has the same number of steps; its end is
    ``terminated``. Where one ended, the observation is the first of the next trial, in a new problem, and
    ``infos[FINAL_OBSERVATION]`` has the last one of the trial before.
    """

    metadata: dict[str, Any] = {"render_modes": [], **AUTORESET}  # noqa: RUF012  (as gymnasium has it)

    def __init__(self, num_envs: int, width: int, actions: int, steps: int) -> None:
        """Spaces for N = ``num_envs`` observations of ``width`` numbers and ``actions`` choices.

        Raises:
            ValueError: ``num_envs`` is below 1.
        """
        at_least("num_envs", num_envs, 1)
        observation = spaces.Box(-np.inf, np.inf, (width,), np.float32)
        super().__init__(num_envs, observation, spaces.Discrete(actions))
        self.steps = steps
        """Of a trial."""
        self._rows = np.arange(num_envs)
        self._step = np.zeros(num_envs, np.int64)
        self._rng: np.random.Generator | None = None
        self._taken: Array = np.zeros(num_envs, np.int64)

    @property
    @abstractmethod
    def problems(self) -> Problems:
        """The problems that are being played, with each action's expected regret."""

    def reset(  # type: ignore[override]  (gymnasium 0.29 lets a seed be a list, one an environment)
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begin new trials everywhere. ``seed`` is that of all random numbers to come; None goes on with them."""
        if self._rng is None or seed is not None:
            self._rng = np.random.default_rng(seed)
        self._step[:] = 0
        self.problems.draw(self._rows, self._rng)
        return self._first(self._rows), {}

    def step_async(self, actions: Any) -> None:
        """Keep the actions [N] of a step.

        Raises:
            ValueError: an action out of range, or another number of them.
        """
        taken = np.asarray(actions)
        number = int(self.single_action_space.n)  # type: ignore[attr-defined]
        if taken.shape != (self.num_envs,) or taken.dtype.kind not in "iu":
            raise ValueError(f"actions are {taken.dtype} {list(taken.shape)}, expected whole numbers [{self.num_envs}]")
        if taken.min() < 0 or taken.max() >= number:
            wrong = taken[(taken < 0) | (taken >= number)][0]
            raise ValueError(f"an action is {wrong}, allowed: 0 to {number - 1}")
        self._taken = taken

    def step_wait(self, **kwargs: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Do the step: observations, rewards float32 [N], terminated bool [N], truncated (none), infos."""
        assert self._rng is not None, "call reset() first"
        rewards = self._advance(self._taken, self._rng)
        self._step += 1
        observations = self._next(self._taken, rewards)
        ended = self._step >= self.steps
        infos: dict[str, Any] = {}
        if ended.any():
            rows = self._rows[ended]
            last = np.full(self.num_envs, None, object)
            for i in rows:
                last[i] = observations[i].copy()
            infos = {FINAL_OBSERVATION: last, f"_{FINAL_OBSERVATION}": ended}
            self._step[rows] = 0
            self.problems.draw(rows, self._rng)
            observations[rows] = self._first(rows)
        return observations, rewards, ended, np.zeros(self.num_envs, bool), infos

    def regrets(self, actions: Array) -> Array:
        """What choosing ``actions`` [N] in the current states loses: float64 [N], in expected reward of the trial.

        The best action's value less the chosen one's, where the best policy for the (unknown) problem follows. Summed
        over a trial, the expectation is the best policy's expected return less the player's: the expected regret
        (the performance difference lemma, Kakade & Langford, ICML 2002), without the noise of rewards.
        """
        return self.problems.regrets(self._situation(), actions)

    @abstractmethod
    def _situation(self) -> tuple[Array, ...]:
        """What the regret of an action depends on beside the problem."""

    @abstractmethod
    def _first(self, rows: Array) -> Array:
        """Begin trials in some environments: their first observations [len(rows), width]."""

    @abstractmethod
    def _advance(self, actions: Array, rng: np.random.Generator) -> Array:
        """Move all environments on: rewards float32 [N]."""

    @abstractmethod
    def _next(self, actions: Array, rewards: Array) -> Array:
        """Observations [N, width] after a step, whether or not it was the trial's last."""


class BanditVectorEnv(TrialVectorEnv):
    """Bernoulli bandits with fresh arms each episode, ``Bandit-v0``.

    Each arm's probability of the reward 1 (else 0) is drawn uniformly from [0, 1]; an episode is ``pulls`` pulls. The
    observation, [arms + 1]: the last action one-hot, and the last reward; zeros before the first pull. (Duan et al.,
    2016, section 3.1: 5, 10 and 50 arms, 10, 100 and 500 pulls.)
    """

    def __init__(self, num_envs: int, arms: int = 5, pulls: int = 10) -> None:
        """``arms`` at least 2 and ``pulls`` at least 1, else ValueError."""
        at_least("arms", arms, 2)
        at_least("pulls", pulls, 1)
        super().__init__(num_envs, arms + 1, arms, pulls)
        self._problems = Bandits(num_envs, arms)

    @property
    def problems(self) -> Bandits:
        return self._problems

    def _situation(self) -> tuple[Array, ...]:
        return ()

    def _first(self, rows: Array) -> Array:
        return np.zeros((len(rows), self._problems.arms + 1), np.float32)

    def _advance(self, actions: Array, rng: np.random.Generator) -> Array:
        return self._problems.pull(actions, rng)

    def _next(self, actions: Array, rewards: Array) -> Array:
        observations = np.zeros((self.num_envs, self._problems.arms + 1), np.float32)
        observations[self._rows, actions] = 1
        observations[:, -1] = rewards
        return observations


class TabularMDPVectorEnv(TrialVectorEnv):
    """Random tabular MDPs, each played for several episodes of the paper, ``TabularMDP-v0``.

    Rewards are Gaussian with variance 1, their means drawn from N(1, 1) for each state and action; each state and
    action's next states have probabilities drawn from a flat Dirichlet distribution. Every ``horizon`` steps an episode
    of the paper ends and the state is the first one again; after ``episodes`` of them the trial ends. The observation,
    [states + actions + 2]: state one-hot, last action one-hot, last reward, and 1 where an episode of the paper begins
    (else 0). (Duan et al., 2016, section 3.2: 10 states, 5 actions, horizon 10; 10, 25, 50, 75 and 100 episodes.)
    """

    def __init__(
        self, num_envs: int, states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10
    ) -> None:
        """``states`` and ``actions`` at least 2, ``horizon`` and ``episodes`` at least 1, else ValueError."""
        at_least("states", states, 2)
        at_least("actions", actions, 2)
        at_least("horizon", horizon, 1)
        at_least("episodes", episodes, 1)
        super().__init__(num_envs, states + actions + 2, actions, horizon * episodes)
        self._problems = TabularMDPs(num_envs, states, actions, horizon)
        self._state = np.zeros(num_envs, np.int64)

    @property
    def problems(self) -> TabularMDPs:
        return self._problems

    def _situation(self) -> tuple[Array, ...]:
        return self._step % self._problems.horizon, self._state

    def _first(self, rows: Array) -> Array:
        self._state[rows] = 0
        observations = np.zeros((len(rows), *self.single_observation_space.shape), np.float32)  # type: ignore[misc]
        observations[:, [0, -1]] = 1
        return observations

    def _advance(self, actions: Array, rng: np.random.Generator) -> Array:
        rewards, self._state = self._problems.move(self._state, actions, rng)
        return rewards

    def _next(self, actions: Array, rewards: Array) -> Array:
        begins = self._step % self._problems.horizon == 0
        self._state[begins] = 0
        observations = np.zeros(self.observation_space.shape, np.float32)  # type: ignore[arg-type]
        observations[self._rows, self._state] = 1
        observations[self._rows, self._problems.states + actions] = 1
        observations[:, -2] = rewards
        observations[:, -1] = begins
        return observations


class Trial(gymnasium.Env[Array, Any]):
    """One environment of a vector of one, for loops that step single environments."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (as gymnasium has it)

    def __init__(self, vector: TrialVectorEnv) -> None:
        """``vector``: of one environment."""
        self._vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin a trial in a new problem."""
        super().reset(seed=seed)
        return self._vector.reset(seed=seed)[0][0], {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Take one step."""
        observations, rewards, terminated, _, infos = self._vector.step(np.asarray(action)[None])
        ended = bool(terminated[0])
        observation = infos[FINAL_OBSERVATION][0] if ended else observations[0]
        return observation, float(rewards[0]), ended, False, {}


def make_bandit(**settings: Any) -> Trial:
    """A single :class:`BanditVectorEnv`, of which the settings are."""
    return Trial(BanditVectorEnv(1, **settings))


def make_mdp(**settings: Any) -> Trial:
    """A single :class:`TabularMDPVectorEnv`, of which the settings are."""
    return Trial(TabularMDPVectorEnv(1, **settings))


def at_least(name: str, value: Any, least: int) -> None:
    """ValueError unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")


gymnasium.register("Bandit-v0", make_bandit, vector_entry_point=f"{__name__}:BanditVectorEnv")
gymnasium.register("TabularMDP-v0", make_mdp, vector_entry_point=f"{__name__}:TabularMDPVectorEnv")
