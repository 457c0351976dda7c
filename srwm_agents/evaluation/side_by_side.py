"""Level ranges evaluated at the same time, each in a process of its own."""

from __future__ import annotations

import functools
import multiprocessing
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from srwm_agents.agent import load_agent
from srwm_agents.evaluation.arenas import Arena
from srwm_agents.evaluation.rollouts import Forgetful, Policy, RandomPolicy, play
from srwm_agents.evaluation.splits import Split
from srwm_agents.machine import available_cores
from srwm_agents.signals import STOP_SIGNALS
from srwm_agents.spaces.actions import ActionSpec

_LOOK_EVERY_SECONDS = 0.1


class EvaluationError(RuntimeError):
    """A process that plays ended without its result; the message names its range of levels."""


@dataclass(frozen=True)
class Player:
    """Who plays, as something that another process can make for itself."""

    agent: Path | None
    """A portable agent's folder or file; None for the random policy."""
    device: str = "cpu"
    """Where the agent runs."""
    forget: bool = False
    """Whether the memory is wiped before every step."""
    random_actions: ActionSpec | None = None
    """What the random policy draws from; None for Procgen's."""

    def policy(self) -> Policy:
        """Load it.

        Raises:
            AgentError: as :func:`srwm_agents.load_agent`.
        """
        random = RandomPolicy(self.random_actions)
        policy: Policy = random if self.agent is None else load_agent(self.agent, self.device)
        return Forgetful(policy) if self.forget else policy


def play_ranges(
    player: Player,
    arena: Arena,
    ranges: Sequence[Split],
    *,
    processes: int,
    on_episode: Callable[[int, int], None],
    on_range: Callable[[int, pd.DataFrame], None],
    stop: Callable[[], bool],
    **options: Any,
) -> list[pd.DataFrame]:
    """Play the episodes of several ranges of levels, as many at a time as there are processes.

    Every range has its own simulator and its own random numbers, so that the results do not depend on ``processes``.

    Args:
        player: who plays.
        arena: what is played.
        ranges: the ranges of levels.
        processes: how many ranges are played at the same time; with 1 they are played in this process, in turn.
        on_episode: called with a range's index and the number of its episodes that have just finished.
        on_range: called with a range's index and all of its episodes, when it ends.
        stop: asked again and again; once it is true, all ranges end with the rounds that they have finished.
        options: of :func:`.rollouts.play`.

    Returns:
        The data frames of :func:`.rollouts.play`, in the order of ``ranges``.

    Raises:
        EvaluationError: a process ended without its result.
        Exception: whatever playing raised.
    """
    results: dict[int, pd.DataFrame] = {}
    if processes == 1 or len(ranges) == 1:
        policy = player.policy()
        for index, split in enumerate(ranges):
            tell = functools.partial(on_episode, index)
            results[index] = play(policy, arena, split, on_episode=tell, stop=stop, **options)
            on_range(index, results[index])
        return list(results.values())
    context = multiprocessing.get_context("spawn")  # CUDA does not work in a forked process
    messages: Any = context.Queue()
    stopping = context.Event()
    threads = max(1, available_cores() // processes)
    waiting = list(enumerate(ranges))
    playing: dict[int, Any] = {}
    try:
        while len(results) < len(ranges):
            while waiting and len(playing) < processes:
                index, split = waiting.pop(0)
                arguments = (index, player, arena, split, threads, messages, stopping, options)
                playing[index] = context.Process(target=_play, args=arguments, daemon=True)
                with _deaf_to_stop_signals():
                    playing[index].start()
            if stop():
                stopping.set()
            try:
                kind, index, content = messages.get(timeout=_LOOK_EVERY_SECONDS)
            except queue.Empty:
                _look_for_dead(playing, ranges, messages)
                continue
            if kind == "episodes":
                on_episode(index, content)
            elif kind == "result":
                results[index] = content
                on_range(index, content)
                playing.pop(index).join()
            else:
                raise content
    finally:
        for process in playing.values():
            process.kill()
    return [results[index] for index in range(len(ranges))]


@contextmanager
def _deaf_to_stop_signals() -> Iterator[None]:
    """Have processes that start here get no signal to stop, from their first moment: this one says when they stop.

    A terminal sends Ctrl-C to all of them. Signals that come meanwhile reach this process afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _look_for_dead(playing: dict[int, Any], ranges: Sequence[Split], messages: Any) -> None:
    for index, process in playing.items():
        if not process.is_alive() and messages.empty():
            raise EvaluationError(f"the process that played {ranges[index].name} ended ({_ending(process.exitcode)})")


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _play(
    index: int,
    player: Player,
    arena: Arena,
    split: Split,
    threads: int,
    messages: Any,
    stopping: Any,
    options: dict[str, Any],
) -> None:
    """The work of one process: play a range, and send what comes of it."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        frame = play(
            player.policy(),
            arena,
            split,
            on_episode=lambda count: messages.put(("episodes", index, count)),
            stop=stopping.is_set,
            num_threads=max(0, min(4, threads - 1)),
            **options,
        )
        messages.put(("result", index, frame))
    except Exception as error:
        messages.put(("failure", index, error))
