"""Training from a command line: parse, check, run the engine, report; what the training command calls."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gymnasium import spaces
from rich.console import Console
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.envs.env_utils import register_env
from sample_factory.pbt.population_based_training import PopulationBasedTraining

from srwm_agents.command_line import fail, reason
from srwm_agents.display import make_console
from srwm_agents.experiment_folders import ExperimentFolder
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.checkpoint import CheckpointError, list_checkpoints, load_checkpoint
from srwm_agents.integrations.sample_factory.checks import check_spaces
from srwm_agents.integrations.sample_factory.config import (
    CONTENTS,
    ConfigError,
    Machine,
    experiment_folder,
    finish_config,
)
from srwm_agents.integrations.sample_factory.core import register_core
from srwm_agents.integrations.sample_factory.environment import ENV_NAME, make_environment
from srwm_agents.integrations.sample_factory.learner import AGENT_FOLDERS, AVERAGE_FOLDER, SIGNALS
from srwm_agents.integrations.sample_factory.model import make_actor_critic, make_encoder
from srwm_agents.integrations.sample_factory.processes import TOLD_IN_ONE_LINE, WorkerDiedError, quiet_console_log
from srwm_agents.integrations.sample_factory.progress import TrainingDisplay
from srwm_agents.integrations.sample_factory.ranks import EpisodesToMain, Ranks, choose_gpu, told_once
from srwm_agents.integrations.sample_factory.runner import (
    InProcessWatchedRunner,
    ParallelWatchedRunner,
    SerialWatchedRunner,
    WatchedRunner,
    environment_info,
)
from srwm_agents.integrations.sample_factory.statistics import CURVES_FILE, GameStatistics
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.integrations.sample_factory.summaries import hide_later_steps
from srwm_agents.launch import Launch, LaunchError
from srwm_agents.machine import use_threads

FAILED = 1
"""Exit status of a run that failed."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training run ended, and what it left behind."""

    exit_status: int
    """0 done; 1 failed; 128 + n stopped by signal n, saved."""
    folder: Path | None = None
    """The experiment's folder, if training began."""

    @property
    def agent(self) -> Path | None:
        """The portable agent's folder, if there is one."""
        agent = None if self.folder is None else self.folder / AGENT_FOLDERS["checkpoint"]
        return agent if agent is not None and agent.is_dir() else None

    @property
    def curves(self) -> Path | None:
        """The raw numbers of the learning curves, if there are any."""
        curves = None if self.folder is None else self.folder / CURVES_FILE
        return curves if curves is not None and curves.is_file() and curves.read_bytes().count(b"\n") > 1 else None


def register(env: str = ENV_NAME) -> None:
    """Put our environment, encoder and cores into Sample Factory's factories; your own scripts may call it too.

    ``env``: the configuration's, by which Sample Factory asks for environments.
    """
    register_env(env, make_environment)
    register_core()
    global_model_factory().register_encoder_factory(make_encoder)
    global_model_factory().register_actor_critic_factory(make_actor_critic)


def train(argv: Sequence[str] | None = None, console: Console | None = None) -> TrainingResult:
    """Parse, check, train. A user's errors are one line on stderr and exit status 1; ``--help`` and bad flags exit.

    Under ``torchrun`` all processes call it, and then end by :func:`srwm_agents.processes.end_process`; the result of
    the main one has the folder.
    """
    _refuse_import_by_a_worker()
    console = console or make_console()
    try:
        launch = Launch.here()
        with told_once(launch):
            args = parse_train_args(argv)
            if not args.log_console:
                quiet_console_log()
            choose_gpu(args, launch)
            cfg = finish_config(args, Machine.share(launch))
        if launch.world_size == 1:
            return _train(cfg, console)
        if not launch.is_main:
            console = Console(file=io.StringIO(), quiet=True)
        return _train(cfg, console, Ranks(launch, cfg.device))
    except (ConfigError, LaunchError, *TOLD_IN_ONE_LINE) as error:
        return _failed(reason(error), None)


def _train(cfg: Any, console: Console, ranks: Ranks | None = None) -> TrainingResult:
    """Train in the experiment's folder, which the main one of several ranks alone opens."""
    with contextlib.ExitStack() as stack:
        folder = None
        if ranks is None or ranks.launch.is_main:
            folder = ExperimentFolder(experiment_folder(cfg), CONTENTS, cfg.restart_behavior)
            stack.enter_context(folder)
        frames = frames_so_far(cfg)
        if frames >= cfg.train_for_env_steps:
            _say(console, f"{cfg.experiment}: already trained for {frames:,} of {cfg.train_for_env_steps:,} frames")
            result, in_order = TrainingResult(0, None if folder is None else folder.path), True
        else:
            result, in_order = _run(cfg, folder, frames, console, ranks)
        if ranks is not None and in_order:
            ranks.end()
        return result


def _refuse_import_by_a_worker() -> None:
    """End a worker process that runs the program's main module again, and with it a call of :func:`train`."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        fail("train() was called while a worker process imports the program: call it under if __name__ == '__main__':")
        sys.exit(1)


def frames_so_far(cfg: Any) -> int:
    """Frames in the checkpoint that training would resume from; it is read here so that a bad one stops the run."""
    if cfg.restart_behavior != "resume":
        return 0
    kind = {"latest": "checkpoint", "best": "best"}[cfg.load_checkpoint_kind]
    folder = experiment_folder(cfg) / "checkpoint_p0"
    checkpoints = list_checkpoints(folder, kind)
    if not checkpoints and list_checkpoints(folder, "checkpoint"):
        raise CheckpointError(
            f"--load_checkpoint_kind is 'best', but {folder} has no best checkpoint yet "
            f"(they begin after --save_best_after = {cfg.save_best_after} frames); use latest"
        )
    if not checkpoints:
        for agent in (experiment_folder(cfg) / name for name in (*AGENT_FOLDERS.values(), AVERAGE_FOLDER)):
            if agent.is_dir():
                raise CheckpointError(
                    f"{agent} is there, but no checkpoint to go on from: training would begin anew and overwrite it; "
                    "name another --experiment, or --restart_behavior=restart"
                )
        return 0
    return int(load_checkpoint(checkpoints[-1])["env_steps"])


def _run(
    cfg: Any, folder: ExperimentFolder | None, frames: int, console: Console, ranks: Ranks | None
) -> tuple[TrainingResult, bool]:
    """The run's result, and whether it ended in order: as the other ranks do, if there are any."""
    register(cfg.env)
    if cfg.compile:
        # Learner and inference worker compile at the same time, by default with one compiler a core each; an encoder
        # is a few dozen kernels, and starting so many compilers takes longer than they save.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    environment = environment_info(cfg)  # the last thing that can fail before what is there is deleted or moved
    check_spaces(cfg, environment)
    observed = cast(spaces.Dict, environment.obs_space).spaces.values()
    images = any(len(space.shape or ()) == 3 for space in observed)
    threads = use_threads(cfg.threads, images=images, device=cfg.device, processes=cfg.world_size)
    cfg.threads = threads if cfg.device == "cpu" else cfg.threads  # of the learner, where it is a process
    if folder is not None:
        folder.begin()
    if ranks is not None:
        ranks.pool.wait()  # until the main one has begun
    runner = _runner_class(cfg)(cfg, ranks)
    runner.environment, runner.folder = environment, folder
    for writer in runner.writers.values() if folder is not None else ():
        hide_later_steps(writer, frames)
    saved_before = None if folder is None else _newest_checkpoint(folder.path)
    if cfg.with_pbt:
        runner.register_observer(PopulationBasedTraining(cfg, runner))
    suite = suite_of(cfg)
    playing = cfg.world_size * cfg.num_workers * cfg.worker_num_splits * cfg.vector_size
    statistics = GameStatistics(
        cfg.tasks, suite.mode(cfg), cfg.stats_avg, experiment_folder(cfg), playing // len(cfg.tasks)
    )
    if ranks is not None and folder is None:
        runner.register_observer(EpisodesToMain(ranks.peers))
    else:
        statistics.resume_from(frames)
        runner.register_observer(statistics)
    _say(
        console,
        f"{cfg.experiment}: {cfg.core} on {suite.about(cfg)}, {_devices(cfg)}"
        + (f", resuming at {frames:,} frames" if frames else ""),
    )
    if runner.init() != ExperimentStatus.SUCCESS:
        return _failed(f"Sample Factory refused the settings: {runner.error or 'it does not say why'}", None), False
    with TrainingDisplay(console, statistics, cfg.train_for_env_steps, cfg.train_for_seconds) as runner.display:
        status = runner.run()
    path = None if folder is None else folder.path
    if folder is not None:
        folder.check()
    if status == ExperimentStatus.FAILURE:
        result = _run_failed(runner, path)
        if folder is not None and _newest_checkpoint(folder.path) is None:
            # Nothing can go on from here: the corrected command may be of another environment or network.
            (folder.path / "config.json").unlink(missing_ok=True)
    elif folder is not None:
        result = _ended(status, runner, cfg, folder, saved_before, console)
    else:
        number = signal.SIGINT if status == ExperimentStatus.INTERRUPTED else runner.stop_signal
        result = TrainingResult(0 if number is None else SIGNALS + number)
    return result, status == ExperimentStatus.SUCCESS and result.exit_status != FAILED


def _run_failed(runner: WatchedRunner, path: Path | None) -> TrainingResult:
    if runner.failure is None:
        return _failed(f"training failed: {runner.error or 'Sample Factory does not say why'}", path)
    if isinstance(runner.failure, (WorkerDiedError, *TOLD_IN_ONE_LINE)):
        is_report = isinstance(runner.failure, WorkerDiedError)
        return _failed(str(runner.failure) if is_report else reason(runner.failure), path)
    traceback.print_exception(runner.failure)
    return _failed(reason_of(runner.failure), path)


def _newest_checkpoint(folder: Path) -> tuple[Path, int] | None:
    """The newest checkpoint and when it was written, in nanoseconds."""
    checkpoints = list_checkpoints(folder / "checkpoint_p0", "checkpoint")
    return (checkpoints[-1], checkpoints[-1].stat().st_mtime_ns) if checkpoints else None


def _ended(
    status: Any,
    runner: WatchedRunner,
    cfg: Any,
    folder: ExperimentFolder,
    saved_before: tuple[Path, int] | None,
    console: Console,
) -> TrainingResult:
    """How a run ended that did not fail, told as it was found on the disk.

    ``saved_before``: the newest checkpoint when it began, which is not this run's.
    """
    newest = _newest_checkpoint(folder.path)
    where = "there is no checkpoint yet" if newest is None else f"the same command goes on from {newest[0]}"
    if status == ExperimentStatus.INTERRUPTED:  # by a second Ctrl-C, after which nothing is written
        _say(console, f"interrupted; {where}")
        return TrainingResult(SIGNALS + signal.SIGINT, folder.path)
    if runner.stop_signal is not None:
        _say(console, f"stopped{'' if newest == saved_before else ' and saved'}; {where}")
        return TrainingResult(SIGNALS + runner.stop_signal, folder.path)
    played = min(runner.env_steps.values(), default=0)  # training ends when every policy is there
    if played < cfg.train_for_env_steps:
        _say(
            console,
            f"the {cfg.train_for_seconds:,} seconds of --train_for_seconds are over, at {played:,} of "
            f"{cfg.train_for_env_steps:,} frames",
        )
    if newest is None:
        return _failed(f"training ended, but {folder.path} has no checkpoint", folder.path)
    return TrainingResult(0, folder.path)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _runner_class(cfg: Any) -> type[WatchedRunner]:
    if cfg.in_process:
        return InProcessWatchedRunner
    return SerialWatchedRunner if cfg.serial_mode else ParallelWatchedRunner


def _devices(cfg: Any) -> str:
    name = "GPU" if cfg.device == "gpu" else "CPU"
    return name if cfg.world_size == 1 else f"{cfg.world_size} processes, each on a {name}"


def reason_of(failure: BaseException) -> str:
    """The exception that ended a run, in one line."""
    text = str(failure)
    # CUDA prints which check it was on its own, before the exception.
    if "probability tensor" in text or "device-side assert" in text:
        return (
            "the policy's outputs are not finite, unless the lines above name another check: training has diverged. "
            "The last checkpoint is untouched; a lower --learning_rate may help, or core settings that bound the "
            "memory, as preset fast has them"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def _failed(message: str, folder: Path | None) -> TrainingResult:
    return TrainingResult(fail(message, "train", FAILED), folder)
