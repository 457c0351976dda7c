"""Level ranges evaluated at the same time: in turn in one process, or each in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Self

import numpy.typing as npt
import pandas as pd
import torch

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.evaluation.arenas import Arena
from srwm_agents.evaluation.rollouts import Forgetful, Policy, RandomPolicy, play, play_in_turn
from srwm_agents.evaluation.splits import Split
from srwm_agents.machine import available_cores
from srwm_agents.signals import STOP_SIGNALS
from srwm_agents.spaces.actions import ActionSpec

_LOOK_EVERY_SECONDS = 0.1


class EvaluationError(RuntimeError):
    """A process that plays ended without its result; the message names its range of levels."""


@dataclass(frozen=True)
class Player:
    """Who plays, as something that another process can make for itself.

    It holds an agent's weights and not the name of its file: while training goes on, that is replaced again and again,
    and each range of levels would be played by another agent.
    """

    config: AgentConfig | None
    """The agent's; None for the random policy."""
    weights: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    """The agent's state dict."""
    device: str = "cpu"
    """Where the agent runs."""
    forget: bool = False
    """Whether the memory is wiped before every step."""
    random_actions: ActionSpec | None = None
    """What the random policy draws from; None for Procgen's."""

    @classmethod
    def of(cls, agent: Agent, device: str = "cpu", *, forget: bool = False) -> Self:
        """Make one of an agent, whose weights are copied."""
        weights = {name: tensor.detach().cpu().numpy().copy() for name, tensor in agent.state_dict().items()}
        return cls(agent.config, weights, device, forget)

    def policy(self) -> Policy:
        """Make the policy; an agent is in evaluation mode, and on a GPU replays CUDA graphs."""
        policy: Policy = RandomPolicy(self.random_actions)
        if self.config is not None:
            agent = Agent(self.config)
            agent.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in self.weights.items()})
            policy = agent.eval().to(self.device)
            if agent.device.type == "cuda":
                agent.use_graphs()
        return Forgetful(policy) if self.forget else policy


def play_ranges(
    player: Player,
    arena: Arena,
    ranges: Sequence[Split],
    *,
    processes: int,
    threads: int,
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
        processes: how many ranges are played at the same time, each in a process of its own; with 1 all of them are
            played in this process, step by step in turn.
        threads: PyTorch's, of each further process.
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
    if processes == 1 or len(ranges) == 1:
        # At least one thread each: without one, a simulator steps when it is waited for.
        options["num_threads"] = max(1, min(4, available_cores() // len(ranges)))
        tell = {"on_episode": on_episode, "on_range": on_range, "stop": stop}
        return play_in_turn(player.policy(), arena, ranges, **tell, **options)
    results: dict[int, pd.DataFrame] = {}
    context = multiprocessing.get_context("spawn")  # CUDA does not work in a forked process
    simulating = max(0, min(4, available_cores() // processes - 1))  # beside each process's own thread
    waiting = list(enumerate(ranges))
    playing: dict[Connection, tuple[int, Any]] = {}
    told_to_stop = False
    try:
        while len(results) < len(ranges):
            while waiting and len(playing) < processes:
                index, split = waiting.pop(0)
                # Pipes and no queue: its semaphores would stay in /dev/shm when all processes are killed.
                ours, theirs = context.Pipe()
                arguments = (theirs, player, arena, split, threads, told_to_stop, options | {"num_threads": simulating})
                process = context.Process(target=_play, args=arguments, daemon=True)
                with _deaf_to_stop_signals():
                    process.start()
                theirs.close()
                playing[ours] = (index, process)
            if stop() and not told_to_stop:
                told_to_stop = True
                for pipe in playing:
                    with contextlib.suppress(OSError):  # it has just ended
                        pipe.send("stop")
            for pipe in wait(list(playing), _LOOK_EVERY_SECONDS):
                assert isinstance(pipe, Connection)
                index, process = playing[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, OSError) as error:
                    process.join()
                    raise EvaluationError(
                        f"the process that played {ranges[index].name} ended ({_ending(process.exitcode)})"
                    ) from error
                if kind == "episodes":
                    on_episode(index, content)
                elif kind == "result":
                    results[index] = content
                    on_range(index, content)
                    del playing[pipe]
                    process.join()
                    pipe.close()
                else:
                    raise content
    finally:
        for _, process in playing.values():
            process.kill()
    return [results[index] for index in range(len(ranges))]


@contextmanager
def _deaf_to_stop_signals() -> Iterator[None]:
    """Have processes that start here get no signal to stop, from their first moment: this one says when they stop.

    A terminal sends Ctrl-C to all of them. Signals that come meanwhile reach this process afterwards.
    """
    resource_tracker.ensure_running()  # its start, which may come with that of a process, ends by unblocking signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _play(
    pipe: Connection,
    player: Player,
    arena: Arena,
    split: Split,
    threads: int,
    stopping: bool,
    options: dict[str, Any],
) -> None:
    """The work of one process: play a range, and send what comes of it."""
    stop = threading.Event()
    if stopping:
        stop.set()
    threading.Thread(target=_listen, args=(pipe, stop), daemon=True).start()
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    try:
        frame = play(
            player.policy(),
            arena,
            split,
            on_episode=lambda count: pipe.send(("episodes", count)),
            stop=stop.is_set,
            **options,
        )
        pipe.send(("result", frame))
    except Exception as error:
        pipe.send(("failure", error))


def _listen(pipe: Connection, stop: threading.Event) -> None:
    """Wait for the word to stop, and end this process when the one that gives it is gone, by SIGKILL perhaps."""
    try:
        while True:
            pipe.recv()
            stop.set()
    except (EOFError, OSError):
        os._exit(1)
