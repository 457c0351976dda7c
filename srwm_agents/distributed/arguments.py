"""Flags of ``distributed train``: those of the training command without Sample Factory's workers, and a few more."""

from __future__ import annotations

import argparse
import math
import os
import socket
from collections.abc import Sequence
from typing import Any

from srwm_agents.command_line import program
from srwm_agents.integrations.sample_factory.arguments import make_parser, parse_train_args
from srwm_agents.integrations.sample_factory.checks import learners_stay_equal
from srwm_agents.integrations.sample_factory.config import ConfigError, finish_config
from srwm_agents.integrations.sample_factory.ranks import choose_gpu
from srwm_agents.integrations.sample_factory.request import PROCGEN
from srwm_agents.launch import Launch

UNSUPPORTED_FLAGS = (
    *("serial_mode", "in_process", "async_rl", "batched_sampling", "worker_num_splits", "policy_workers_per_policy"),
    *("num_policies", "with_vtrace", "actor_worker_gpus", "env_gpu_observations", "env_gpu_actions"),
    *("force_envs_single_thread", "num_batches_to_accumulate", "default_niceness", "set_workers_cpu_affinity"),
    *("decorrelate_experience_max_seconds", "decorrelate_envs_on_one_worker", "benchmark", "heartbeat_interval"),
    *("heartbeat_reporting_interval", "use_env_info_cache", "with_pbt", "pbt_mix_policies_in_one_env"),
    *("pbt_period_env_steps", "pbt_start_mutation", "pbt_replace_fraction", "pbt_mutation_rate"),
    *("pbt_replace_reward_gap", "pbt_replace_reward_gap_absolute", "pbt_optimize_gamma", "pbt_target_objective"),
    *("pbt_perturb_min", "pbt_perturb_max", "with_wandb", "wandb_user", "wandb_project", "wandb_group"),
    *("wandb_job_type", "wandb_tags", "save_best_metric", "save_best_every_sec", "save_milestones_sec"),
    *("use_record_episode_statistics",),
)
"""Flags of the training command that configure Sample Factory's workers; an error here."""


def make_distributed_parser() -> argparse.ArgumentParser:
    """Make the parser of the training command with this command's own flags."""
    parser = make_parser()
    parser.prog = f"{program('distributed')} train"
    parser.description = (
        "Train on many machines: this process learns, collectors run wherever the Ray cluster has free CPUs. The flags "
        f"are those of {program('train')}; --num_workers is the number of collectors, --num_envs_per_worker the games "
        "of each."
    )
    ours = parser.add_argument_group("distributed")
    ours.add_argument(
        "--ray_address",
        default="",
        help="Address of a running cluster, host:port; empty: RAY_ADDRESS, else a cluster on this machine alone",
    )
    ours.add_argument("--worker_cpus", default=1.0, type=float, help="CPUs that each collector reserves")
    ours.add_argument(
        "--worker_gpus", default=0.0, type=float, help="Share of a GPU that each collector reserves and acts on; 0: CPU"
    )
    parser.set_defaults(worker_num_splits=1)
    for action in parser._actions:
        if action.dest in UNSUPPORTED_FLAGS:
            action.help = argparse.SUPPRESS
    return parser


def parse_distributed_args(argv: Sequence[str]) -> Any:
    """Parse a command line into a finished configuration.

    Raises:
        ConfigError: a setting that cannot work, or that distributed training does not support.
    """
    args = parse_train_args(argv, make_distributed_parser())
    choose_gpu(args, Launch.here())
    for name in UNSUPPORTED_FLAGS:
        if name in args.cli_args:
            raise ConfigError(
                f"--{name} is a flag of {program('train')} that distributed training does not support: leave it out"
            )
    cfg = finish_config(args, in_process=False)  # which presets turn on for an engine with threads
    if "env_threads" not in cfg.given:
        cfg.env_threads = max(0, int(cfg.worker_cpus) - 1)  # beside the collector's own; 0 plays in that one
    for name in ("worker_cpus", "worker_gpus"):
        if not 0 <= cfg[name] < math.inf:
            raise ConfigError(f"--{name} is {cfg[name]}, expected at least 0")
    if not cfg.with_vtrace:
        raise ConfigError("--with_vtrace is False, allowed: True (rollouts are off-policy)")
    if cfg.env != PROCGEN:
        raise ConfigError(f"--env is {cfg.env!r}, allowed: {PROCGEN} (collectors play Procgen's games only)")
    return cfg


def ray_address(cfg: Any) -> str:
    """Address of the cluster to join; empty to start one on this machine."""
    return cfg.ray_address or os.environ.get("RAY_ADDRESS", "")


def check_reachable(address: str) -> None:
    """Raise :class:`ConfigError` if nothing listens at host:port; Ray itself would retry for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto" and the like, which Ray resolves at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {address!r} ({error}): is one running there (ray start --head)?"
        ) from error


def check_processes(cfg: Any, world_size: int) -> None:
    """Raise :class:`ConfigError` unless ``world_size`` learner processes can share the batch and the collectors."""
    if world_size == 1:
        return
    if not ray_address(cfg):
        raise ConfigError(
            "several learner processes need a running cluster (ray start --head): name it in --ray_address"
        )
    rollouts = cfg.batch_size // cfg.rollout
    if rollouts % world_size:
        nearest = max(1, round(rollouts / world_size)) * world_size * cfg.rollout
        raise ConfigError(
            f"--batch_size / --rollout is {rollouts}, "
            f"expected a multiple of {world_size} (the number of learner processes), as with --batch_size={nearest}"
        )
    if cfg.num_workers < world_size:
        raise ConfigError(
            f"--num_workers is {cfg.num_workers}, expected at least one for each of {world_size} learners"
        )
    if message := learners_stay_equal(cfg, world_size):
        raise ConfigError(message)
