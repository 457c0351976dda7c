"""Sample Factory's runners with our learner, which end when a worker died, and save and stop on signals."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sample_factory.algo.runners import runner as sf_runner
from sample_factory.algo.runners.runner import Runner
from sample_factory.algo.runners.runner_parallel import ParallelRunner
from sample_factory.algo.runners.runner_serial import SerialRunner
from sample_factory.algo.utils.env_info import EnvInfo, extract_env_info
from sample_factory.algo.utils.make_env import make_env_func_batched
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.utils import utils as sf_utils
from sample_factory.utils.utils import experiment_dir
from signal_slot.signal_slot import Timer

from srwm_agents.integrations.sample_factory.config import save_config
from srwm_agents.integrations.sample_factory.in_process import ThreadedRunner
from srwm_agents.integrations.sample_factory.learner import SRWMLearnerWorker
from srwm_agents.integrations.sample_factory.processes import WorkerDiedError, death_report, kill_all, wrap_process
from srwm_agents.integrations.sample_factory.progress import TrainingDisplay
from srwm_agents.signals import StopRequest

_WATCH_EVERY_SECONDS = 0.5
_STOP_WITHIN_SECONDS = 60.0
_END_WITHIN_SECONDS = 5.0


def lag_text(lag: Mapping[str, float]) -> str:
    """Age of the first policy's latest data: updates made between the acting weights' and those that learned from it.

    ``lag``: ``version_diff_avg`` and ``version_diff_max``, as TensorBoard has them under ``train/``; empty before the
    first update.
    """
    if "version_diff_avg" not in lag:
        return ""
    return f"lag {lag['version_diff_avg']:.1f} (largest {lag['version_diff_max']:.0f}) updates"


class _ExceptionKeeper(logging.Handler):
    """Keeps the first exception that is logged."""

    exception: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.exception is None and record.exc_info:
            self.exception = record.exc_info[1]


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
    stop_request: StopRequest
    """Whether a signal has asked training to stop."""
    failure: BaseException | None = None
    """The first exception of the run: why it ended badly, if it did."""

    def init(self) -> Any:
        self.stop_request = StopRequest()
        # Sample Factory asks a process of its own for the environment's spaces, and waits for ever if that dies.
        ask = sf_runner.obtain_env_info_in_a_separate_process
        sf_runner.obtain_env_info_in_a_separate_process = environment_info
        try:
            status = super().init()
        finally:
            sf_runner.obtain_env_info_in_a_separate_process = ask
        if status == ExperimentStatus.SUCCESS:
            folder = Path(experiment_dir(self.cfg))
            for process in self._workers():
                wrap_process(process, folder, self.cfg.log_console)
            self._watch = Timer(self.event_loop, _WATCH_EVERY_SECONDS)
            self._watch.timeout.connect(self._look)
            self._stop_began: float | None = None
        return status

    def _make_learner(self, event_loop: Any, policy_id: int, batcher: Any) -> SRWMLearnerWorker:
        return SRWMLearnerWorker(event_loop, self.cfg, self.env_info, self.buffer_mgr, batcher, policy_id)

    def _save_cfg(self) -> None:
        save_config(self.cfg)

    def _workers(self) -> list[Any]:
        """The worker processes, if there are any."""
        return [*getattr(self, "processes", []), *getattr(self.sampler, "processes", [])]

    @property
    def stop_signal(self) -> int | None:
        """The signal that asked training to stop, if one did."""
        return self.stop_request.number

    def _look(self) -> None:
        self.total_train_seconds = time.time() - self.start_time  # which Sample Factory forgets: --train_for_seconds
        if self.display is not None and self.env_steps:
            # Training ends when every policy is there.
            self.display.update(min(self.env_steps.values()), lag_text(self.policy_lag[0]))
        if self.stop_request and not self.stopped:
            self._stop_training()
        if not self.stopped:
            for process in self._workers():
                if report := death_report(process, Path(experiment_dir(self.cfg))):
                    raise WorkerDiedError(report)
            for thread in self.threads:
                if thread.failed:
                    raise WorkerDiedError(f"thread {thread.name} ended; see sf_log.txt")
        elif self._stop_began is None:
            self._stop_began = time.monotonic()
        elif time.monotonic() - self._stop_began > _STOP_WITHIN_SECONDS:
            raise WorkerDiedError(f"workers did not stop within {_STOP_WITHIN_SECONDS:.0f} s and were killed")

    def run(self) -> Any:
        """Train until done, stopped or failed; workers are gone when this returns."""
        # Runner.run turns every exception into a status and a log entry; the reason is taken from there for the user.
        keeper = _ExceptionKeeper()
        sf_utils.log.addHandler(keeper)
        try:
            with self.stop_request:
                return super().run()
        finally:
            self.failure = keeper.exception
            sf_utils.log.removeHandler(keeper)
            kill_all(self._workers())
            for thread in self.threads:  # already ended, unless the run failed
                thread.event_loop.stop()
                thread.join(_END_WITHIN_SECONDS)


class ParallelWatchedRunner(WatchedRunner, ParallelRunner):
    """Asynchronous training: learner, inference and rollout workers in processes of their own."""


class SerialWatchedRunner(WatchedRunner, SerialRunner):
    """Everything in one process, for debugging."""


class InProcessWatchedRunner(WatchedRunner, ThreadedRunner):
    """Asynchronous training in threads of this process, which share a GPU better than processes do."""
