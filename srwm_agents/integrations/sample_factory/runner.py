"""Sample Factory's runners with our learner, which end when a worker died, and save and stop on signals."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from sample_factory.algo.runners import runner as sf_runner
from sample_factory.algo.runners.runner import Runner
from sample_factory.algo.runners.runner_parallel import ParallelRunner
from sample_factory.algo.runners.runner_serial import SerialRunner
from sample_factory.algo.utils.env_info import EnvInfo, extract_env_info
from sample_factory.algo.utils.make_env import make_env_func_batched
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.utils import utils as sf_utils
from signal_slot.signal_slot import Timer

from srwm_agents.experiment_folders import ExperimentFolder
from srwm_agents.integrations.sample_factory import weights_and_biases
from srwm_agents.integrations.sample_factory.config import experiment_folder, save_config
from srwm_agents.integrations.sample_factory.in_process import ThreadedRunner
from srwm_agents.integrations.sample_factory.learner import ENDS, SIGNALS, SRWMLearnerWorker
from srwm_agents.integrations.sample_factory.processes import (
    LONGEST_LOOK_SECONDS,
    LOOK_EVERY_SECONDS,
    StandstillGuard,
    WatchedProcess,
    WorkerDiedError,
    tolerate_full_disk,
    use_monotonic_clock,
)
from srwm_agents.integrations.sample_factory.progress import TrainingDisplay
from srwm_agents.integrations.sample_factory.ranks import Ranks, writing_nothing
from srwm_agents.integrations.sample_factory.summaries import tolerate_write_errors
from srwm_agents.learning.pooling import SINGLE
from srwm_agents.signals import StopRequest

_STOP_WITHIN_SECONDS = 300.0
_END_WITHIN_SECONDS = 5.0
_END_AMONG_RANKS_SECONDS = 1.0


def lag_text(lag: Mapping[str, float]) -> str:
    """Age of the first policy's latest data: updates made between the acting weights' and those that learned from it.

    ``lag``: ``version_diff_avg`` and ``version_diff_max``, as TensorBoard has them under ``train/``; empty before the
    first update.
    """
    if "version_diff_avg" not in lag:
        return ""
    return f"lag {lag['version_diff_avg']:.1f} (largest {lag['version_diff_max']:.0f}) updates"


class _ErrorKeeper(logging.Handler):
    """Keeps the first exception and the first error that are logged."""

    exception: BaseException | None = None
    error: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.exception is None and record.exc_info:
            self.exception = record.exc_info[1]
        if self.error is None and record.levelno >= logging.ERROR:
            self.error = record.getMessage()


def environment_info(cfg: Any) -> EnvInfo:
    """Spaces and number of agents of one vector of environments, which is made here for a moment."""
    environment = make_env_func_batched(cfg, env_config=None)
    try:
        return extract_env_info(environment, cfg)
    finally:
        environment.close()


class WatchedRunner(Runner):
    """What all of our runners add to Sample Factory's; mixed in before one of them."""

    processes: list[Any]
    threads: tuple[Any, ...] = ()
    display: TrainingDisplay | None = None
    folder: ExperimentFolder | None = None
    """Which the run ends without."""
    environment: EnvInfo | None = None
    """What :func:`environment_info` returns, if it has been called already."""
    stop_request: StopRequest
    """Whether a signal has asked training to stop."""
    failure: BaseException | None = None
    """The first exception of the run: why it ended badly, if it did."""
    error: str | None = None
    """The first error that was logged."""

    def __init__(self, cfg: Any, ranks: Ranks | None = None) -> None:
        """``ranks``: under torchrun, the connections to the others, the main one of which alone writes."""
        use_monotonic_clock()
        self.ranks = ranks
        self.is_main = ranks is None or ranks.launch.is_main
        if not self.is_main:
            cfg.with_wandb = False
        # Sample Factory starts wandb in a manner that today's refuses.
        weights_and_biases.begin(cfg)
        asked, cfg.with_wandb = cfg.with_wandb, False
        try:
            with writing_nothing(not self.is_main):
                super().__init__(cfg)
        finally:
            cfg.with_wandb = asked
        for writer in self.writers.values() if self.is_main else ():
            tolerate_write_errors(writer)
        self.stop_request = StopRequest()
        self.stop_flag = torch.zeros(1, dtype=torch.uint8).share_memory_()
        self._watched: list[WatchedProcess] = []
        self._stop_began: float | None = None
        self._looked_at = time.monotonic()
        self._awake = 0.0
        """Seconds that the run has been going on, without those in which it was suspended as a whole."""

    def _handle_restart(self) -> None:
        """Nothing: what lies in the experiment's folder is deleted or moved before, by its owner."""

    def init(self) -> Any:
        # Sample Factory asks a process of its own for the environment's spaces, and waits for ever if that dies.
        ask = sf_runner.obtain_env_info_in_a_separate_process
        sf_runner.obtain_env_info_in_a_separate_process = lambda cfg: self.environment or environment_info(cfg)
        keeper = _ErrorKeeper()
        sf_utils.log.addHandler(keeper)
        try:
            with writing_nothing(not self.is_main):
                status = super().init()
        finally:
            sf_runner.obtain_env_info_in_a_separate_process = ask
            sf_utils.log.removeHandler(keeper)
            self.error = keeper.error
        tolerate_full_disk()
        if status == ExperimentStatus.SUCCESS:
            processes = [*getattr(self, "processes", []), *getattr(self.sampler, "processes", [])]
            folder = experiment_folder(self.cfg)
            self._watched = [WatchedProcess(process, folder, self.cfg.log_console) for process in processes]
            self._guard = StandstillGuard(self._watched)
            self._watch = Timer(self.event_loop, LOOK_EVERY_SECONDS)
            self._watch.timeout.connect(self._look)
        return status

    def _make_learner(self, event_loop: Any, policy_id: int, batcher: Any) -> SRWMLearnerWorker:
        pool = SINGLE if self.ranks is None else self.ranks.pool
        worker = SRWMLearnerWorker(
            event_loop, self.cfg, self.env_info, self.buffer_mgr, batcher, policy_id, self.stop_flag, pool
        )
        lock: Any = worker.param_server.policy_lock
        if self.folder is not None and hasattr(lock, "_semlock"):  # at once: a kill may come at any time
            self.folder.remember_semaphores([lock._semlock.name])
        return worker

    def _save_cfg(self) -> None:
        if self.is_main:
            save_config(self.cfg)

    @property
    def stop_signal(self) -> int | None:
        """The signal that asked training to stop, here or in another rank, if one did."""
        told = int(self.stop_flag) - SIGNALS if self.stop_flag > SIGNALS else None
        return told if self.stop_request.number is None else self.stop_request.number

    def _look(self) -> None:
        now = time.monotonic()
        self.total_train_seconds = now - self.start_time  # which Sample Factory forgets: --train_for_seconds
        since, self._looked_at = min(now - self._looked_at, LONGEST_LOOK_SECONDS), now
        self._awake += since
        if self.display is not None and self.env_steps:
            # Training ends when every policy is there.
            self.display.update(min(self.env_steps.values()), lag_text(self.policy_lag[0]))
        if self.folder is not None:
            self.folder.check()
        if not self.stopped:
            if self.stop_request:
                self.stop_flag.fill_(self.stop_request.exit_status)
            elif self.total_train_seconds > self.cfg.train_for_seconds and not self.stop_flag:
                self.stop_flag.fill_(ENDS)
            if self.stop_flag:  # perhaps set by the learner, because another rank has to stop
                self._stop_training()
        if self.ranks is not None:
            self.ranks.receive_episodes(self)
            if self.ranks.peers.report is not None:
                raise WorkerDiedError(self.ranks.peers.report)
        for process in self._watched:
            if self._guard.report is None and (report := process.death(expected=self.stopped)):
                raise WorkerDiedError(report)
        if self._guard.report is not None:
            raise WorkerDiedError(self._guard.report)
        for thread in self.threads:
            if thread.failed:
                raise WorkerDiedError(f"thread {thread.name} ended")
        if not self.stopped:
            self._check_signs_of_life()
        elif self._stop_began is None:
            self._stop_began = self._awake
        elif self._awake - self._stop_began > _STOP_WITHIN_SECONDS:
            late = [process.name for process in self._watched if process.alive] or [t.name for t in self.threads]
            raise WorkerDiedError(
                f"{', '.join(late)} did not stop within {_STOP_WITHIN_SECONDS:.0f} s and had to be killed"
            )

    # Heartbeats: each component sends one every --heartbeat_interval seconds, between two of its tasks.

    def _receive_heartbeat(self, component_type: type, component_id: str, p_name: str, qsize: int) -> None:
        self.heartbeat_dict[component_type][component_id] = self._awake
        self.queue_size_dict[p_name] = qsize

    def _check_heartbeat(self) -> None:
        """Nothing: they are checked at each look."""

    def _check_signs_of_life(self) -> None:
        """Raise :class:`WorkerDiedError` with the names of components that hang."""
        if self.cfg.serial_mode and not self.threads:
            return  # one loop has them all: none can send anything while another works
        limit = self.heartbeat_report_sec
        for components in self.heartbeat_dict.values():
            # Before its first sign a component may have to compile.
            silent = [name for name, last in components.items() if self._awake - (last or 2 * limit) > limit]
            if silent:
                raise WorkerDiedError(
                    f"no sign of life from {', '.join(silent)} for {limit} s (--heartbeat_reporting_interval)"
                )

    def run(self) -> Any:
        """Train until done, stopped or failed; workers are gone when this returns."""
        # Runner.run turns every exception into a status and a log entry; the reason is taken from there for the user.
        keeper = _ErrorKeeper()
        sf_utils.log.addHandler(keeper)
        try:
            self._guard.start()
            with self.stop_request:
                return super().run()
        finally:
            self._guard.end()
            # Whatever waited for a worker that stood still failed in a manner of its own.
            still = self._guard.report
            self.failure = keeper.exception if still is None else WorkerDiedError(still)
            self.error = keeper.error
            sf_utils.log.removeHandler(keeper)
            for process in self._watched:
                process.kill()
            for process in self._watched:
                process.join()
            for thread in self.threads:  # already ended, unless the run failed
                thread.event_loop.stop()
                # One that waits for a rank that is gone does not end at all.
                thread.join(_END_WITHIN_SECONDS if self.ranks is None else _END_AMONG_RANKS_SECONDS)
            weights_and_biases.end(self.cfg)


class ParallelWatchedRunner(WatchedRunner, ParallelRunner):
    """Asynchronous training: learner, inference and rollout workers in processes of their own."""


class SerialWatchedRunner(WatchedRunner, SerialRunner):
    """Everything in one process, for debugging."""


class InProcessWatchedRunner(WatchedRunner, ThreadedRunner):
    """Asynchronous training in threads of this process, which share a GPU better than processes do."""
