"""Evaluation episodes in a vector environment, reproducible and without a bias to short ones."""

from __future__ import annotations

import contextlib
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

__all__ = ["COLUMNS", "NOOP", "Forgetful", "Policy", "RandomPolicy", "play", "play_episodes", "play_in_turn"]


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
    on_episode: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Play exactly ``episodes`` episodes of each task of an arena on the levels of a split.

    Arguments as of :func:`play_episodes`. Returns one row an episode, columns as ``COLUMNS``; ordered by task and
    environment, not by time.

    Raises:
        ValueError: ``episodes`` is below 1, or as the arena's vectors.
    """
    return play_in_turn(
        policy, arena, [split], on_episode=on_episode and (lambda _, count: on_episode(count)), stop=stop, **options
    )[0]


def play_in_turn(
    policy: Policy,
    arena: Arena,
    splits: Sequence[Split],
    *,
    on_episode: Callable[[int, int], None] | None = None,
    on_range: Callable[[int, pd.DataFrame], None] | None = None,
    stop: Callable[[], bool] | None = None,
    **options: Any,
) -> list[pd.DataFrame]:
    """Play the episodes of several splits at the same time: while the policy acts in one, the others' simulators step.

    The numbers are those of each split alone. Arguments as of :func:`play_episodes`; ``on_episode`` is called with a
    split's index and the number of its episodes that have just finished, ``on_range`` with its index and all of its
    episodes, when it ends.

    Returns:
        What :func:`play` returns of each split.
    """
    frames: dict[int, pd.DataFrame] = {}
    with contextlib.ExitStack() as vectors:
        playing: dict[int, _Playing] = {}
        for index, split in enumerate(splits):
            playing[index] = _Playing(policy, arena, split, **options)
            vectors.callback(playing[index].close)
        for one in playing.values():
            one.begin_step()
        while playing:
            stopping = stop is not None and stop()
            for index, one in list(playing.items()):
                count = one.finish_step()
                if on_episode is not None and count:
                    on_episode(index, count)
                if not stopping and not one.done:
                    one.begin_step()
                    continue
                frames[index] = playing.pop(index).frame()
                if on_range is not None:
                    on_range(index, frames[index])
    return [frames[index] for index in range(len(splits))]


class _Playing:
    """The episodes of one split, step by step.

    Every environment plays a fixed number of episodes and then idles. Taking the first episodes to *finish* instead
    would be biased to short ones, which have other scores.
    """

    def __init__(
        self,
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
    ) -> None:
        if episodes < 1:
            raise ValueError(f"episodes is {episodes}, expected at least 1")
        self._arena, self._split = arena, split
        per_game = min(max_envs, episodes)
        # On a GPU frames go up as the simulator lays them out, from page-locked memory, and are transposed there.
        gpu = torch.device(device) if torch.device(device).type == "cuda" else None
        self._env = env = arena.make(per_game, split, seed, num_threads=num_threads, device=gpu)
        # Environment i is the (i // games)-th of its game; the first ones play the remainder, one episode more.
        order = np.arange(env.num_envs) // len(arena.tasks)
        self._quota = episodes // per_game + (order < episodes % per_game)
        self._played = np.zeros(env.num_envs, dtype=int)
        self._rows: list[_Row] = []
        self._stepping = False
        try:
            idle = arena.idle(env.num_envs)
            self._play = Play(policy, env, idle, seed=seed, deterministic=deterministic, device=device)
        except BaseException:
            env.close()
            raise

    @property
    def done(self) -> bool:
        """Whether all environments have played their episodes."""
        return bool((self._played >= self._quota).all())

    def begin_step(self) -> None:
        """Act, and have the environments begin their step."""
        self._play.begin(np.flatnonzero(self._played < self._quota))
        self._stepping = True

    def finish_step(self) -> int:
        """Wait for the step; returns the number of episodes that it ended."""
        self._stepping = False
        _, infos = self._play.finish()
        finished = np.flatnonzero(infos["episode_ended"] & (self._played < self._quota))
        for i in map(int, finished):
            score, length = float(infos["episode_return"][i]), int(infos["episode_length"][i])
            self._rows.append((i, int(self._played[i]), score, length, *self._arena.level(infos, i)))
        self._played[finished] += 1
        return len(finished)

    def frame(self) -> pd.DataFrame:
        """The episodes; before all are played, only the rounds that all environments of a game have finished."""
        rows, game_index = self._rows, self._env.game_index
        if not self.done:
            rounds = [self._played[game_index == game].min() for game in range(len(self._arena.tasks))]
            rows = [row for row in rows if row[1] < rounds[game_index[row[0]]]]
        return _frame(rows, game_index, self._arena, self._split)

    def close(self) -> None:
        """Free the simulator, when a step that is under way is done: after a failure of another split's."""
        if self._stepping:
            with contextlib.suppress(Exception):
                self._play.finish()
        self._env.close()


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
