"""Evaluation episodes in a vector environment, reproducible and without a bias to short ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from srwm_agents.envs import NUM_ACTIONS, make_procgen, normalised_score
from srwm_agents.evaluation.splits import Split

COLUMNS = ("split", "game", "episode", "return", "normalised_score", "length", "level", "completed")

NOOP = 4
"""Procgen's action without effect."""


class Policy(Protocol):
    """A policy that can be evaluated, as :class:`srwm_agents.Agent` and :class:`RandomPolicy`."""

    def act(
        self,
        observation: Mapping[str, Any],
        state: Tensor | None = None,
        *,
        resets: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Choose actions [N] and return them with the next state; see :meth:`srwm_agents.Agent.act`."""
        ...


class RandomPolicy:
    """The uniformly random policy, the baseline of every evaluation."""

    def act(
        self,
        observation: Mapping[str, Any],
        state: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        **_: Any,
    ) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Draw actions from ``generator``; the other options are ignored."""
        batch = len(observation["obs"])
        return torch.randint(NUM_ACTIONS, (batch,), generator=generator).numpy(), torch.zeros(batch, 0)


class Forgetful:
    """A policy without memory: another one whose state is zeroed before every step."""

    def __init__(self, policy: Policy) -> None:
        """``policy``: the one whose state is zeroed."""
        self._policy = policy

    def act(
        self,
        observation: Mapping[str, Any],
        state: Tensor | None = None,
        *,
        resets: npt.NDArray[np.bool_] | None = None,
        **options: Any,
    ) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Act as at the first step of an episode; ``resets`` is ignored."""
        always = np.ones(len(observation["obs"]), dtype=bool)
        return self._policy.act(observation, state, resets=always, **options)


def play_episodes(
    policy: Policy,
    games: Sequence[str],
    distribution_mode: str,
    split: Split,
    *,
    episodes: int,
    seed: int = 0,
    deterministic: bool = False,
    max_envs: int = 32,
    last_action: bool = False,
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
    on_episode: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Play exactly ``episodes`` episodes of each game on the levels of a split.

    Every environment plays a fixed number of episodes and then idles. Taking the first episodes to *finish* instead
    would be biased to short ones, which have other scores.

    Args:
        policy: the policy.
        games: names.
        distribution_mode: of Procgen.
        split: the levels.
        episodes: number for each game.
        seed: of levels and of sampled actions; the same seed gives the same data frame.
        deterministic: take the likeliest action; else sample.
        max_envs: largest number of environments a game.
        last_action: whether the policy needs its last action in the observation.
        device: of the generator of sampled actions, the policy's.
        num_threads: of the simulator, as of :func:`srwm_agents.envs.make_procgen`; the numbers do not depend on it.
        on_episode: called with the number of episodes that have just finished, for a progress bar.
        stop: asked at every step; once it is true, playing ends. Of each game only the rounds are kept then that all of
            its environments have finished: the other episodes that have ended are short ones.

    Returns:
        One row an episode, columns as ``COLUMNS``; ordered by game and environment, not by time.

    Raises:
        ValueError: ``episodes`` is below 1, or as :func:`srwm_agents.envs.make_procgen`.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, expected at least 1")
    per_game = min(max_envs, episodes)
    env = make_procgen(
        games,
        per_game * len(games),
        distribution_mode,
        split.num_levels,
        split.start_level,
        seed,
        num_threads=num_threads,
        last_action=last_action,
    )
    generator = torch.Generator(device).manual_seed(seed)
    # Environment i is the (i // games)-th of its game; the first ones play the remainder, one episode more.
    quota = np.array([episodes // per_game + (i // len(games) < episodes % per_game) for i in range(env.num_envs)])
    played = np.zeros(env.num_envs, dtype=int)
    rows: list[tuple[int, int, float, int, int, bool]] = []
    state: Tensor | None = None
    previous = active = np.arange(env.num_envs)
    observation, _ = env.reset()
    resets = np.ones(env.num_envs, dtype=bool)
    try:
        while len(active := np.flatnonzero(played < quota)):
            if stop is not None and stop():
                rounds = np.array([played[env.game_index == game].min() for game in range(len(games))])
                rows = [row for row in rows if row[1] < rounds[env.game_index[row[0]]]]
                break
            if state is not None and len(active) < len(previous):
                state = state[torch.as_tensor(np.isin(previous, active), device=state.device)]
            previous = active
            actions = np.full(env.num_envs, NOOP)
            actions[active], state = policy.act(
                {name: entry[active] for name, entry in observation.items()},
                state,
                resets=resets[active],
                deterministic=deterministic,
                generator=generator,
            )
            observation, _, resets, _, infos = env.step(actions)
            finished = np.flatnonzero(resets & (played < quota))
            for i in finished:
                rows.append(
                    (
                        int(i),
                        int(played[i]),
                        float(infos["episode_return"][i]),
                        int(infos["episode_length"][i]),
                        int(infos["prev_level_seed"][i]),
                        bool(infos["prev_level_complete"][i]),
                    )
                )
            played[finished] += 1
            if on_episode is not None and len(finished):
                on_episode(len(finished))
    finally:
        env.close()
    return _frame(rows, env.game_index, games, distribution_mode, split)


def _frame(
    rows: list[tuple[int, int, float, int, int, bool]],
    game_index: npt.NDArray[np.int_],
    games: Sequence[str],
    mode: str,
    split: Split,
) -> pd.DataFrame:
    table = []
    counts = dict.fromkeys(games, 0)
    for i, _, score, length, level, completed in sorted(rows, key=lambda row: (game_index[row[0]], row[0], row[1])):
        game = games[int(game_index[i])]
        normalised = normalised_score(game, mode, score)
        table.append((split.name, game, counts[game], score, normalised, length, level, completed))
        counts[game] += 1
    return pd.DataFrame(table, columns=list(COLUMNS))
