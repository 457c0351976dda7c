"""The distributed learner's training loop: rollouts, updates, checkpoints, curves."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import ray
from gymnasium import spaces
from rich.console import Console
from sample_factory.algo.utils.misc import TRAIN_STATS
from torch.utils.tensorboard import SummaryWriter

from srwm_agents.distributed.arguments import check_reachable, ray_address
from srwm_agents.distributed.learner import DistributedLearner, RolloutQueue
from srwm_agents.distributed.local_cluster import local_cluster
from srwm_agents.distributed.pool import CollectorPool
from srwm_agents.distributed.rollouts import CollectorSettings, as_tensors
from srwm_agents.envs.mirrors import can_be_mirrored
from srwm_agents.experiment_folders import ExperimentFolder
from srwm_agents.integrations.sample_factory.config import (
    CONTENTS,
    ConfigError,
    experiment_folder,
    random_starts,
)
from srwm_agents.integrations.sample_factory.model import export_agent
from srwm_agents.integrations.sample_factory.progress import TrainingDisplay
from srwm_agents.integrations.sample_factory.standalone import begin_experiment, make_learner, trajectories
from srwm_agents.integrations.sample_factory.statistics import GameStatistics
from srwm_agents.integrations.sample_factory.training import TrainingResult, frames_so_far
from srwm_agents.launch import Launch
from srwm_agents.processes import Processes
from srwm_agents.signals import StopRequest

_POLL_SECONDS = 0.5


class DistributedTraining:
    """The training loop of one learner process."""

    def __init__(self, cfg: Any, processes: Processes, folder: ExperimentFolder | None, console: Console) -> None:
        """``folder``: the experiment's, of the main process."""
        self.cfg, self.processes, self.console = cfg, processes, console
        self.folder = experiment_folder(cfg)
        self._locked = folder
        if folder is not None:
            folder.begin()
            begin_experiment(cfg)
        processes.wait()
        cfg_of_process = split_batch(cfg, processes.world_size)
        self.learner = make_learner(cfg_of_process, functools.partial(DistributedLearner, processes))
        games = cfg.games.split(",")
        playing = cfg.num_workers * cfg.worker_num_splits * cfg.vector_size // len(games)
        self.statistics = GameStatistics(games, cfg.distribution_mode, cfg.stats_avg, self.folder, playing)
        self.stop = StopRequest()

    def run(self) -> TrainingResult:
        """Train until done or stopped, and end the collectors."""
        cfg, learner = self.cfg, self.learner
        if self.processes.is_main:
            self.statistics.resume_from(learner.env_steps)
            where = f", resuming at {learner.env_steps:,} frames" if learner.env_steps else ""
            self._say(f"{cfg.experiment}: {cfg.core} on {cfg.games}, learning on {learner.device}{where}")
        with self._ray(), self.stop:
            pool = self._collectors()
            try:
                self._loop(pool)
                self._save()
            finally:
                pool.close()
        if self.stop:
            self._say(f"stopped and saved; the same command goes on from there: {self.folder}")
            return TrainingResult(self.stop.exit_status, self.folder)
        return TrainingResult(0, self.folder)

    def _loop(self, pool: CollectorPool) -> None:
        cfg, learner = self.cfg, self.learner
        number_of_rows = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
        queue = RolloutQueue(number_of_rows // self.processes.world_size, cfg.max_policy_lag)
        began = saved = summarised = time.monotonic()
        warned = False
        writer = None
        if self.processes.is_main:  # TensorBoard hides what killed runs wrote of later frames
            writer = SummaryWriter(self.folder / ".summary" / "0", purge_step=learner.env_steps + 1)
        pool.publish(learner.weights(), learner.train_step)
        display = TrainingDisplay(self.console, self.statistics, cfg.train_for_env_steps, cfg.train_for_seconds)
        with display:
            while True:
                batch = self._next_batch(pool, queue, began + cfg.train_for_seconds)
                stopping = bool(self.stop) or time.monotonic() - began > cfg.train_for_seconds
                # All processes must stop before the same update, since each update averages all gradients.
                if self.processes.any(stopping or batch is None) or batch is None:
                    break
                batch["rewards"] = np.clip(batch["rewards"] * cfg.reward_scale, -cfg.reward_clip, cfg.reward_clip)
                stats = learner.train(trajectories(as_tensors(batch), learner.device))
                pool.publish(learner.weights(), learner.train_step)
                if writer is not None and stats is not None:
                    for name, value in stats.get(TRAIN_STATS, {}).items():
                        writer.add_scalar(f"train/{name}", value, learner.env_steps)
                if learner.env_steps >= cfg.train_for_env_steps:
                    break
                if not self.processes.is_main:
                    continue
                display.update(learner.env_steps)
                now = time.monotonic()
                if now - saved > cfg.save_every_sec:
                    saved = now
                    self._save()
                    self._save_best()
                if now - summarised > cfg.experiment_summaries_interval:
                    summarised = now
                    self._write_curves(writer)
                if queue.dropped and not warned:
                    warned = True
                    self._say(
                        f"rollouts --max_policy_lag = {cfg.max_policy_lag} or more updates old are dropped: "
                        "there are more collectors than the learner can use"
                    )
        if writer is not None:
            self._write_curves(writer)
            writer.close()

    def _next_batch(self, pool: CollectorPool, queue: RolloutQueue, until: float) -> Any:
        """Wait for the batch of one update; None if a signal, or the time ``until``, stops training before."""
        silent_since, said = time.monotonic(), False
        while not self.stop and time.monotonic() < until:
            batch = queue.take(self.learner.train_step)
            if batch is not None:
                return batch
            rollout = pool.next_rollout(_POLL_SECONDS)
            if rollout is not None:
                queue.put(rollout)
                self.statistics.add(*rollout.episodes)
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > 30 and not said:
                said = True
                self._say("no rollouts for 30 s: waiting for a machine with room for a collector (ray status)")
        return None

    def _collectors(self) -> CollectorPool:
        cfg, processes = self.cfg, self.processes
        share, more = divmod(cfg.num_workers, processes.world_size)
        return CollectorPool(
            collector_settings(self.learner),
            share + (processes.rank < more),
            first_number=processes.rank * share + min(processes.rank, more),
            cpus=cfg.worker_cpus,
            gpus=cfg.worker_gpus,
            log=self._say,
        )

    @contextmanager
    def _ray(self) -> Iterator[None]:
        """Connect to a running Ray cluster, or start one that ends with this process.

        Raises:
            ConfigError: the cluster cannot be joined.
        """
        quiet: Any = {"log_to_driver": self.cfg.log_console, "logging_level": "warning"}
        with contextlib.ExitStack() as stack:
            stack.callback(ray.shutdown)
            if address := ray_address(self.cfg):
                try:
                    ray.init(address=address, **quiet)
                except (ConnectionError, RuntimeError, ValueError) as error:
                    raise ConfigError(
                        f"the Ray cluster at {address!r} refuses the connection; if it was started with an "
                        "authentication token, set RAY_AUTH_MODE=token, with the same ~/.ray/auth_token on each machine"
                    ) from error
            else:
                stack.enter_context(local_cluster(**quiet))
                stack.callback(ray.shutdown)  # before the cluster's guard
            yield
            self.processes.wait()

    def _save(self) -> None:
        if self._locked is not None:
            self._locked.check()
        self.learner.save()

    def _save_best(self) -> None:
        score = self.statistics.mean_score()
        if score is not None and self.learner.env_steps >= self.cfg.save_best_after:
            self.learner.save_best(0, "normalised_score", score)

    def _write_curves(self, writer: SummaryWriter | None) -> None:
        # The first argument is Sample Factory's runner, which this statistic does not use.
        self.statistics.extra_summaries(cast(Any, None), 0, writer, self.learner.env_steps)

    def _say(self, line: str) -> None:
        mine = "" if self.processes.world_size == 1 else f"[learner {self.processes.rank}] "
        self.console.print(mine + line, highlight=False, soft_wrap=True, markup=False)


def collector_settings(learner: DistributedLearner) -> CollectorSettings:
    """Settings of a learner's collectors, from its configuration and model."""
    cfg = learner.cfg
    assert learner.actor_critic is not None
    agent = export_agent(cfg, learner.actor_critic, cast(spaces.Dict, learner.env_info.obs_space), {})
    return CollectorSettings(
        agent=asdict(agent.config),
        environment={
            "games": cfg.games,
            "num_envs": cfg.vector_size * cfg.worker_num_splits,
            "distribution_mode": cfg.distribution_mode,
            "num_levels": cfg.num_levels,
            "start_level": cfg.start_level,
            "num_threads": cfg.env_threads,
            "last_action": cfg.last_action,
            "random_starts": random_starts(cfg),
            "spread_starts": cfg.spread_starts,
            "mirror": cfg.mirror and can_be_mirrored(cfg.tasks),
        },
        rollout=cfg.rollout,
        threads=max(1, int(cfg.worker_cpus)),
        device="cuda" if cfg.worker_gpus else "cpu",
        # A resumed run draws other levels than before; without a seed, so does each run.
        seed=(int.from_bytes(os.urandom(3)) if cfg.seed is None else cfg.seed) + learner.train_step,
    )


def train(cfg: Any, console: Console) -> TrainingResult:
    """Train with a finished configuration, in one process or as one of several that ``torchrun`` started.

    Raises:
        ConfigError: the Ray cluster cannot be reached or joined.
        CollectorError: collectors cannot start or fail.
    """
    if address := ray_address(cfg):
        check_reachable(address)
    with contextlib.ExitStack() as stack:
        folder = None
        if Launch.here().is_main:
            folder = ExperimentFolder(experiment_folder(cfg), CONTENTS, cfg.restart_behavior)
            stack.enter_context(folder)
        frames = frames_so_far(cfg)
        if frames >= cfg.train_for_env_steps:
            console.print(f"{cfg.experiment}: already trained for {frames:,} of {cfg.train_for_env_steps:,} frames")
            return TrainingResult(0, experiment_folder(cfg))
        processes = stack.enter_context(Processes("cuda:0" if cfg.device == "gpu" else "cpu"))
        return DistributedTraining(cfg, processes, folder, console).run()


def split_batch(cfg: Any, world_size: int) -> Any:
    """The configuration of one of ``world_size`` learners, with its part of the batch."""
    if world_size == 1:
        return cfg
    # The exchange of gradients cannot be captured in a CUDA graph here.
    return type(cfg)(cfg, batch_size=cfg.batch_size // world_size, cuda_graphs=False)
