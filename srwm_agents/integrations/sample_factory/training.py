"""Training from a command line: parse, check, run the engine, report; what the training command calls."""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.algo.utils.misc import ExperimentStatus
from sample_factory.envs.env_utils import register_env
from sample_factory.pbt.population_based_training import PopulationBasedTraining

from srwm_agents.command_line import fail
from srwm_agents.envs import SimulatorError
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.checkpoint import CheckpointError, list_checkpoints, load_checkpoint
from srwm_agents.integrations.sample_factory.config import ConfigError, experiment_folder, finish_config
from srwm_agents.integrations.sample_factory.core import register_core
from srwm_agents.integrations.sample_factory.environment import ENV_NAME, make_environment
from srwm_agents.integrations.sample_factory.learner import AGENT_FOLDERS
from srwm_agents.integrations.sample_factory.model import make_actor_critic, make_encoder
from srwm_agents.integrations.sample_factory.processes import WorkerDiedError, quiet_console_log
from srwm_agents.integrations.sample_factory.progress import TrainingDisplay
from srwm_agents.integrations.sample_factory.runner import (
    InProcessWatchedRunner,
    ParallelWatchedRunner,
    SerialWatchedRunner,
    WatchedRunner,
)
from srwm_agents.integrations.sample_factory.statistics import CURVES_FILE, GameStatistics


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
        return curves if curves is not None and curves.is_file() and curves.read_text().count("\n") > 1 else None


def register() -> None:
    """Put our environment, encoder and cores into Sample Factory's factories; your own scripts may call it too."""
    register_env(ENV_NAME, make_environment)
    register_core()
    global_model_factory().register_encoder_factory(make_encoder)
    global_model_factory().register_actor_critic_factory(make_actor_critic)


def train(argv: Sequence[str] | None = None, console: Console | None = None) -> TrainingResult:
    """Parse, check, train. A user's errors are one line on stderr and exit status 1; ``--help`` and bad flags exit."""
    args = parse_train_args(argv)
    console = console or Console()
    if not args.log_console:
        quiet_console_log()
    try:
        cfg = finish_config(args)
        frames = frames_so_far(cfg)
        if frames >= cfg.train_for_env_steps:
            console.print(f"{cfg.experiment}: already trained for {frames:,} of {cfg.train_for_env_steps:,} frames")
            return TrainingResult(0, experiment_folder(cfg))
        return _run(cfg, frames, console)
    except (ConfigError, CheckpointError, SimulatorError) as error:
        return _failed(str(error), None)


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
    return int(load_checkpoint(checkpoints[-1])["env_steps"]) if checkpoints else 0


def _run(cfg: Any, frames: int, console: Console) -> TrainingResult:
    register()
    if cfg.compile:
        # Learner and inference worker compile at the same time, by default with one compiler a core each; an encoder
        # is a few dozen kernels, and starting so many compilers takes longer than they save.
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")
    folder = experiment_folder(cfg)
    games = cfg.games.split(",")
    runner = _runner_class(cfg)(cfg)
    if cfg.with_pbt:
        runner.register_observer(PopulationBasedTraining(cfg, runner))
    statistics = GameStatistics(games, cfg.distribution_mode, cfg.stats_avg, folder)
    statistics.resume_from(frames)
    runner.register_observer(statistics)
    console.print(
        f"[bold]{cfg.experiment}[/bold]: {cfg.core} on {', '.join(games)} ({cfg.distribution_mode}, "
        f"{_levels(cfg)}), {'GPU' if cfg.device == 'gpu' else 'CPU'}"
        + (f", resuming at {frames:,} frames" if frames else ""),
        highlight=False,
        soft_wrap=True,
    )
    if runner.init() != ExperimentStatus.SUCCESS:
        return _failed(f"Sample Factory refused the settings; see {folder / 'sf_log.txt'}", folder)
    with TrainingDisplay(console, statistics, cfg.train_for_env_steps, cfg.train_for_seconds) as runner.display:
        status = runner.run()
    if status == ExperimentStatus.FAILURE:
        if isinstance(runner.failure, WorkerDiedError):
            return _failed(str(runner.failure), folder)
        if runner.failure is not None:
            traceback.print_exception(runner.failure)
            return _failed(reason_of(runner.failure), folder)
        return _failed(f"training failed; see {folder / 'sf_log.txt'}", folder)
    if status == ExperimentStatus.INTERRUPTED:
        return _interrupted(console, folder)
    if runner.stop_signal is not None:
        console.print(
            f"stopped and saved; the same command goes on from there: {folder}", highlight=False, soft_wrap=True
        )
        return TrainingResult(128 + runner.stop_signal, folder)
    played = sum(runner.env_steps.values())
    if played < cfg.train_for_env_steps:
        console.print(
            f"the {cfg.train_for_seconds:,} seconds of --train_for_seconds are over, at {played:,} of "
            f"{cfg.train_for_env_steps:,} frames",
            highlight=False,
            soft_wrap=True,
        )
    return TrainingResult(0, folder)


def _interrupted(console: Console, folder: Path) -> TrainingResult:
    """The result of a second Ctrl-C, after which nothing is saved."""
    saved = list_checkpoints(folder / "checkpoint_p0", "checkpoint")
    state = f"the same command goes on from the last checkpoint, {saved[-1]}" if saved else "nothing had been saved"
    console.print(f"interrupted; {state}", highlight=False, soft_wrap=True)
    return TrainingResult(130, folder)


def _runner_class(cfg: Any) -> type[WatchedRunner]:
    if cfg.in_process:
        return InProcessWatchedRunner
    return SerialWatchedRunner if cfg.serial_mode else ParallelWatchedRunner


def _levels(cfg: Any) -> str:
    if cfg.num_levels == 0:
        return f"levels from {cfg.start_level}"
    return f"levels {cfg.start_level}-{cfg.start_level + cfg.num_levels - 1}"


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
    lines = text.splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def _failed(message: str, folder: Path | None) -> TrainingResult:
    return TrainingResult(fail(message, "train"), folder)
