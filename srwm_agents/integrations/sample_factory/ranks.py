"""Training on several GPUs: what ``torchrun``'s processes (ranks) share beside their updates.

Each rank plays and learns in a process of its own, as without torchrun. Gradients and running statistics meet in
:class:`srwm_agents.processes.Processes`, which the learner thread alone calls while training goes on. The main rank
alone writes files and prints; the others send it the episodes that have ended there.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from sample_factory.algo.runners import runner as sf_runner
from sample_factory.algo.runners.runner import AlgoObserver, Runner
from sample_factory.algo.utils.misc import EPISODIC, POLICY_ID_KEY

from srwm_agents.command_line import fail
from srwm_agents.integrations.sample_factory.environment import GAME_KEYS
from srwm_agents.integrations.sample_factory.request import ConfigError
from srwm_agents.launch import Launch
from srwm_agents.peers import Peers, connect_store
from srwm_agents.processes import Processes, end_process, use_own_gpu

_ENDED_WITHIN_SECONDS = 20.0
"""How soon torchrun ends the other processes of a machine when one has failed."""


class Ranks:
    """This rank's connections to the others: for updates and decisions (``pool``), signs of life and messages."""

    def __init__(self, launch: Launch, device: str) -> None:
        """Connect; returns when all ranks have.

        Args:
            launch: the place of this process.
            device: "gpu" or "cpu".

        Raises:
            RankLostError: not all come.
        """
        self.launch = launch
        self.pool = Processes("cuda:0" if device == "gpu" else "cpu")
        self.pool.connect()
        self.peers = Peers(launch, connect_store(launch), lambda report: end_process(fail(report, "train")))
        self.pool.wait()
        self.peers.start()

    def end(self) -> None:
        """Wait for the others, the main one of which may still be saving, and let each go."""
        self.pool.wait()
        self.peers.end()

    def receive_episodes(self, runner: Any) -> None:
        """Let the main rank's runner treat the other ranks' finished episodes as its own."""
        for message in self.peers.received():
            games, returns, lengths = np.frombuffer(message).reshape(3, -1)
            report = dict(zip(GAME_KEYS, (games.astype(np.int64), returns, lengths), strict=True))
            runner._process_msg({EPISODIC: {"reward": returns, "len": lengths, **report}, POLICY_ID_KEY: 0})


class EpisodesToMain(AlgoObserver):
    """Sends each finished episode of a rank's runner to the main rank."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def on_init(self, runner: Runner) -> None:
        runner.policy_msg_handlers[EPISODIC] = [self._send]

    def _send(self, _runner: Runner, msg: dict[str, Any], _policy_id: int) -> None:
        columns = [np.atleast_1d(msg[EPISODIC][key]) for key in GAME_KEYS]
        self._peers.send(np.stack(columns).astype(np.float64).tobytes())


def choose_gpu(args: Any, launch: Launch) -> None:
    """Leave this rank the one GPU that it is to use, before anything asks PyTorch for GPUs.

    Raises:
        ConfigError: torchrun started more processes on this machine than it has GPUs.
    """
    if args.device != "cpu":
        try:
            use_own_gpu(launch)
        except ValueError as error:
            raise ConfigError(str(error)) from error


@contextlib.contextmanager
def writing_nothing(writes_nothing: bool) -> Iterator[None]:
    """Let a runner of Sample Factory's that is made or initialised here write no summaries, no log and no git.diff."""
    if not writes_nothing:
        yield
        return
    originals = {name: getattr(sf_runner, name) for name in ("SummaryWriter", "init_file_logger", "save_git_diff")}
    sf_runner.SummaryWriter = partial(originals["SummaryWriter"], write_to_disk=False)
    for name in ("init_file_logger", "save_git_diff"):
        setattr(sf_runner, name, lambda _argument: None)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(sf_runner, name, original)


@contextlib.contextmanager
def told_once(launch: Launch) -> Iterator[None]:
    """Let an error that all ranks of a machine find be told by the first of them.

    The others wait for torchrun to end them; one that is not ended has found an error of its own, and tells it.
    """
    if launch.local_rank == 0:
        yield
        return
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    except (Exception, SystemExit) as error:
        if not (isinstance(error, SystemExit) and not error.code):  # --help
            time.sleep(_ENDED_WITHIN_SECONDS)
            sys.stderr.write(output.getvalue())
        raise
