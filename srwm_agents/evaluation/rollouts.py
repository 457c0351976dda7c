"""Evaluation episodes in a vector environment, reproducible and without a bias to short ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from srwm_agents.envs import NUM_ACTIONS
from srwm_agents.evaluation.arenas import NOOP, Arena, ProcgenArena
from srwm_agents.evaluation.playing import Play, Policy
from srwm_agents.evaluation.splits import Split
from srwm_agents.spaces.actions import ActionSpec

COLUMNS = ("split", "game", "episode", "return", "normalised_score", "length", "level", "completed")

__all__ = ["COLUMNS", "NOOP", "Forgetful", "Policy", "RandomPolicy", "play", "play_episodes"]


class RandomPolicy:
    """The uniformly random policy, the baseline of every evaluation."""

    def __init__(self, actions: ActionSpec | None = None) -> None:
        """``actions``: the environment's; None for Procgen's."""
        self._actions = actions or ActionSpec.discrete(NUM_ACTIONS)

    def act(
        self,
        observation: Mapping[str, Any],
        state: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        **_: Any,
    ) -> tuple[npt.NDArray[Any], Tensor]:
        """Draw actions from ``generator``; the other options are ignored. Of a range without bounds: from -1 to 1."""
        batch, actions = _batch_of(observation), self._actions
        if actions.continuous:
            chosen = torch.rand(batch, actions.count, generator=generator) * 2 - 1
        else:
            columns = [torch.randint(size, (batch,), generator=generator) for size in actions.sizes]
            chosen = torch.stack(columns, dim=1)
        return actions.native(chosen.numpy()), torch.zeros(batch, 0)


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
    ) -> tuple[npt.NDArray[Any], Tensor]:
        """Act as at the first step of an episode; ``resets`` is ignored."""
        always = np.ones(_batch_of(observation), dtype=bool)
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
    """Play exactly ``episodes`` episodes of each Procgen game on the levels of a split; see :func:`play`.

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
    arena = ProcgenArena(games, distribution_mode, last_action)
    return play(
        policy,
        arena,
        split,
        episodes=episodes,
        seed=seed,
        deterministic=deterministic,
        max_envs=max_envs,
        device=device,
        num_threads=num_threads,
        on_episode=on_episode,
        stop=stop,
    )


def play(
    policy: Policy,
    arena: Arena,
    split: Split,
    *,
    episodes: int,
    seed: int = 0,
    deterministic: bool = False,
    max_envs: int = 32,
    device: torch.device | str = "cpu",
    num_threads: int | None = None,
    on_episode: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Play exactly ``episodes`` episodes of each task of an arena on the levels of a split.

    Every environment plays a fixed number of episodes and then idles. Taking the first episodes to *finish* instead
    would be biased to short ones, which have other scores.

    Arguments as of :func:`play_episodes`. Returns one row an episode, columns as ``COLUMNS``; ordered by task and
    environment, not by time.

    Raises:
        ValueError: ``episodes`` is below 1, or as the arena's vectors.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, expected at least 1")
    games = arena.tasks
    per_game = min(max_envs, episodes)
    # On a GPU frames go up as the simulator lays them out, from page-locked memory, and are transposed there.
    gpu = torch.device(device) if torch.device(device).type == "cuda" else None
    env = arena.make(per_game, split, seed, num_threads=num_threads, device=gpu)
    # Environment i is the (i // games)-th of its game; the first ones play the remainder, one episode more.
    quota = np.array([episodes // per_game + (i // len(games) < episodes % per_game) for i in range(env.num_envs)])
    played = np.zeros(env.num_envs, dtype=int)
    rows: list[_Row] = []
    try:
        running = Play(policy, env, arena.idle(env.num_envs), seed=seed, deterministic=deterministic, device=device)
        while len(active := np.flatnonzero(played < quota)):
            if stop is not None and stop():
                rounds = np.array([played[env.game_index == game].min() for game in range(len(games))])
                rows = [row for row in rows if row[1] < rounds[env.game_index[row[0]]]]
                break
            _, infos = running.step(active)
            resets = infos["episode_ended"]
            finished = np.flatnonzero(resets & (played < quota))
            for i in finished:
                rows.append(
                    (
                        int(i),
                        int(played[i]),
                        float(infos["episode_return"][i]),
                        int(infos["episode_length"][i]),
                        *arena.level(infos, int(i)),
                    )
                )
            played[finished] += 1
            if on_episode is not None and len(finished):
                on_episode(len(finished))
    finally:
        env.close()
    return _frame(rows, env.game_index, arena, split)


_Row = tuple[int, int, float, int, int | None, bool | None]
"""Environment, number of its episode, return, length, level, whether that was completed."""


def _frame(rows: list[_Row], game_index: npt.NDArray[np.int_], arena: Arena, split: Split) -> pd.DataFrame:
    table = []
    counts = dict.fromkeys(arena.tasks, 0)
    for i, _, score, length, level, completed in sorted(rows, key=lambda row: (game_index[row[0]], row[0], row[1])):
        game = arena.tasks[int(game_index[i])]
        normalised = arena.normalised(game, score)
        table.append((split.name, game, counts[game], score, normalised, length, level, completed))
        counts[game] += 1
    return pd.DataFrame(table, columns=list(COLUMNS))


def _batch_of(observation: Mapping[str, Any]) -> int:
    return len(next(iter(observation.values())))
