"""From parsed flags to a configuration that Sample Factory can run: derived values, and checks that it lacks."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from sample_factory.cfg.arguments import maybe_load_from_checkpoint
from sample_factory.utils.attr_dict import AttrDict

from envs.games import IMAGE_SHAPE, check_levels, check_mode, parse_games
from envs.random_starts import check_random_starts
from srwm_agents.cores import make_core
from srwm_agents.encoders import IMAGE_KEY

CORE_SETTINGS = (
    "hidden_size",
    "num_layers",
    "num_heads",
    "ff_size",
    "input_softmax",
    "input_norm",
    "beta_mean",
    "query_scale",
    "state_decay",
    "state_limit",
    "unit_keys",
    "detach_state_every_step",
)
ARCHITECTURE = (
    "core", *(name for name in CORE_SETTINGS if name != "state_limit"), "games", "last_action",
    "encoder_conv_architecture", "encoder_conv_mlp_layers", "nonlinearity", "decoder_mlp_layers", "normalize_input",
    "popart", "reward_treatment", "critic",
)  # fmt: skip
"""Settings that cannot change when an experiment is resumed: what the network is, and what its values are of."""

_FORMERLY = {"state_decay": 1.0, "unit_keys": False, "popart": False, "reward_treatment": "clip", "critic": "shared"}
"""Of experiments from before there was a choice."""

_UNCLIPPED = 1000.0
"""Sample Factory's own ``reward_clip``: far beyond what any of Procgen's games gives."""

_Number = TypeVar("_Number", int, float)

_DERIVED = {
    "rnn_size": "--hidden_size, --num_layers and --num_heads",
    "rnn_type": "--core",
    "rnn_num_layers": "--num_layers",
}


class ConfigError(ValueError):
    """A setting that cannot work; the message names it, its value and what is allowed."""


def experiment_folder(cfg: Any) -> Path:
    """Where an experiment's files lie; unlike Sample Factory's own function, this one makes no folder."""
    return Path(cfg.train_dir) / cfg.experiment


def available_cores() -> int:
    """CPU cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def core_settings(cfg: Any) -> dict[str, Any]:
    """The keyword arguments of ``make_core`` that a configuration asks for, without input_size."""
    return {name: cfg[name] for name in CORE_SETTINGS} | {"rollout_length": cfg.rollout}


def finish_config(args: Any) -> AttrDict:
    """Merge with a saved experiment's settings if there is one, derive what Sample Factory needs, and check it all.

    Raises:
        ConfigError: a setting that cannot work, or one that a resumed experiment cannot change.
    """
    given: dict[str, Any] = args.cli_args
    for name, instead in _DERIVED.items():
        if name in given:
            raise ConfigError(f"--{name} follows from the core and cannot be set; use {instead}")
    saved = _saved_settings(args) if args.restart_behavior == "resume" else None
    cfg = AttrDict(vars(args)) if saved is None else maybe_load_from_checkpoint(args)
    if saved is not None:
        for name in ARCHITECTURE:
            before = saved.get(name, _FORMERLY.get(name, cfg[name]))
            if cfg[name] != before:
                raise ConfigError(
                    f"--{name} is {cfg[name]!r}, but experiment {cfg.experiment!r} was begun with {before!r}; "
                    "use another --experiment, or --restart_behavior=restart"
                )
    _check_counts(cfg)
    if saved is None or "num_envs_per_worker" in given or "worker_num_splits" in given:
        _split_environments(cfg)
    _derive(cfg, given)
    _check(cfg)
    return cfg


def _saved_settings(args: Any) -> dict[str, Any] | None:
    file = experiment_folder(args) / "config.json"
    if not file.is_file():
        if list(file.parent.glob("checkpoint_p*/checkpoint_*.pth")):
            raise ConfigError(f"{file.parent} has checkpoints, but its config.json is missing: restore it to resume")
        return None
    try:
        saved = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} is no JSON ({error}): restore it to resume") from error
    if not isinstance(saved, dict):
        raise ConfigError(f"{file} is no JSON object: restore it to resume")
    return saved


def _check_counts(cfg: AttrDict) -> None:
    for name in ("num_workers", "rollout", "batch_size", "num_batches_per_epoch", "num_epochs", "num_policies",
                 "train_for_env_steps", "worker_num_splits", "policy_workers_per_policy"):  # fmt: skip
        if cfg[name] < 1:
            raise ConfigError(f"--{name} is {cfg[name]}, expected at least 1")
    for name in ("learning_rate", "vtrace_rho", "vtrace_c", "exploration_loss_coeff", "value_loss_coeff",
                 "advantage_loss_coeff"):  # fmt: skip
        if cfg[name] < 0:
            raise ConfigError(f"--{name} is {cfg[name]}, expected at least 0")
    if not 0 <= cfg.gamma <= 1:
        raise ConfigError(f"--gamma is {cfg.gamma}, expected from 0 to 1")


def game_discounts(cfg: AttrDict) -> list[float]:
    """Each game's discount, in the games' order.

    Raises:
        ConfigError: ``game_gammas`` cannot be read, names a game that is not played, or is not from 0 to 1.
    """
    discounts = _by_game(cfg, "game_gammas", float, "DISCOUNT")
    for game, discount in discounts.items():
        if not 0 <= discount <= 1:
            raise ConfigError(f"--game_gammas has {discount:g} for {game}, expected from 0 to 1")
    return [discounts.get(game, float(cfg.gamma)) for game in parse_games(cfg.games)]


def random_starts(cfg: AttrDict) -> dict[str, int]:
    """The largest number of random steps with which episodes begin, of the games that have any.

    Raises:
        ConfigError: ``random_starts`` cannot be read, names a game that is not played, or is out of bounds.
    """
    longest = _by_game(cfg, "random_starts", int, "STEPS")
    try:
        check_random_starts(longest, parse_games(cfg.games))
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    return longest


def _by_game(cfg: AttrDict, flag: str, read: Callable[[str], _Number], what: str) -> dict[str, _Number]:
    """A flag GAME=VALUE,GAME=VALUE,…"""
    games = parse_games(cfg.games)
    values = {}
    for entry in filter(None, cfg[flag].split(",")):
        game, _, value = (part.strip() for part in entry.partition("="))
        try:
            number = read(value)
        except ValueError:
            raise ConfigError(f"--{flag} is {cfg[flag]!r}, expected GAME={what},…") from None
        if game not in games:
            raise ConfigError(f"--{flag} names {game!r}, but --games are: {', '.join(games)}")
        values[game] = number
    return values


def _split_environments(cfg: AttrDict) -> None:
    """One C++ vector environment a split: ``num_envs_per_worker`` counts games being played, as users mean it."""
    if cfg.num_envs_per_worker % cfg.worker_num_splits:
        raise ConfigError(
            f"--num_envs_per_worker is {cfg.num_envs_per_worker}, expected a multiple of "
            f"--worker_num_splits = {cfg.worker_num_splits}"
        )
    cfg.vector_size = cfg.num_envs_per_worker // cfg.worker_num_splits
    cfg.num_envs_per_worker = cfg.worker_num_splits


def _derive(cfg: AttrDict, given: dict[str, Any]) -> None:
    if not cfg.use_rnn and cfg.core != "feedforward":
        if "core" in given:
            raise ConfigError(f"--use_rnn=False means --core=feedforward, but --core is {cfg.core!r}")
        cfg.core = "feedforward"
    cfg.use_rnn = True  # the feed-forward core is one of ours, with an empty state
    # A preset's are for all its games, of which a run may play some.
    played = [game.strip() for game in cfg.games.split(",")]
    for name in {"game_gammas", "random_starts"} - given.keys():
        cfg[name] = ",".join(entry for entry in cfg[name].split(",") if entry.partition("=")[0].strip() in played)
    if cfg.recurrence == -1:
        cfg.recurrence = cfg.rollout
    try:
        with torch.random.fork_rng(devices=[]):  # on "meta", drawing weights imports PyTorch's compiler: seconds
            state_size = make_core(cfg.core, input_size=1, **core_settings(cfg)).state_size
    except ValueError as error:
        raise ConfigError(f"--core={cfg.core}: {error}") from error
    # Sample Factory sizes its buffers by these; a GRU of one layer has exactly one vector of state.
    cfg.rnn_type, cfg.rnn_num_layers, cfg.rnn_size = "gru", 1, max(1, state_size)
    if cfg.reward_treatment != "clip":
        if "reward_clip" in given:
            raise ConfigError(
                f"--reward_clip is {cfg.reward_clip}, but --reward_treatment={cfg.reward_treatment} does not clip by "
                "it: leave one of them out"
            )
        cfg.reward_clip = _UNCLIPPED
    if cfg.device != "gpu":
        # Presets turn these on for a GPU. On a CPU, compiling needs a C++ compiler, there are no graphs, and threads of
        # one process would share Python's interpreter for nothing.
        for name in ("compile", "cuda_graphs", "in_process"):
            cfg[name] = cfg[name] and name in given
    if "actor_worker_gpus" not in given:
        # Acting where the learner is keeps whole trajectories on the GPU; only frames travel. Not what was saved: a run
        # may go on on another kind of machine.
        cfg.actor_worker_gpus = [0] if cfg.device == "gpu" else []
    if "serial_mode" in given and cfg.serial_mode and "in_process" not in given:
        cfg.in_process = False
    # Queues, locks and buffers of one process; not what was saved, so that a resumed run may change its mind.
    cfg.serial_mode = cfg.in_process or (cfg.serial_mode and "serial_mode" in given)
    if cfg.env_threads < 0:
        # A worker steps one of its vectors at a time, so its share of the cores serves each of them. In one process
        # all vectors but the one that is being acted for are stepped at the same time.
        at_once = max(1, cfg.num_workers * cfg.worker_num_splits - 1) if cfg.in_process else cfg.num_workers
        cfg.env_threads = max(1, available_cores() // at_once)
    if cfg.normalize_input and cfg.normalize_input_keys is None:
        # All that the network sees, and not what the learner keeps books with.
        cfg.normalize_input_keys = [IMAGE_KEY, "last_reward", *(["last_action"] if cfg.last_action else [])]


def _check(cfg: AttrDict) -> None:
    if cfg.env != "procgen":
        raise ConfigError(f"--env is {cfg.env!r}, allowed: procgen (choose games with --games)")
    try:
        games = parse_games(cfg.games)
        check_mode(games, cfg.distribution_mode)
        check_levels(cfg.num_levels, cfg.start_level)
        cfg.games = ",".join(games)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if cfg.device == "gpu" and not torch.cuda.is_available():
        raise ConfigError("--device is 'gpu', but PyTorch sees no CUDA device; use --device=cpu")
    game_discounts(cfg)
    random_starts(cfg)
    _check_normalization(cfg)
    if cfg.cuda_graphs:
        if cfg.device != "gpu":
            raise ConfigError("--cuda_graphs is True, but --device is 'cpu', expected 'gpu'")
        if cfg.with_pbt or cfg.optimizer == "lamb":
            culprit = "--with_pbt=True" if cfg.with_pbt else "--optimizer=lamb"
            raise ConfigError(f"--cuda_graphs=True does not go with {culprit}: set --cuda_graphs=False")
    if cfg.in_process:
        needs = {"batched_sampling": True, "async_rl": True, "num_policies": 1, "with_pbt": False}
        for name, expected in needs.items():
            if cfg[name] != expected:
                raise ConfigError(f"--in_process=True needs --{name}={expected}, but it is {cfg[name]}")
        if cfg.device == "gpu" and not (cfg.actor_worker_gpus and cfg.env_gpu_observations):
            raise ConfigError("--in_process=True needs --actor_worker_gpus 0 and --env_gpu_observations=True on a GPU")
    if cfg.vector_size % len(games):
        raise ConfigError(
            f"--num_envs_per_worker / --worker_num_splits is {cfg.vector_size}, "
            f"expected a multiple of {len(games)} (the number of games)"
        )
    if not cfg.actor_critic_share_weights:
        raise ConfigError(
            "--actor_critic_share_weights is False, allowed: True (one memory serves actor and critic; "
            "--critic=separate gives the critic an encoder of its own)"
        )
    if cfg.popart and cfg.critic != "shared":
        raise ConfigError(f"--popart=True does not go with --critic={cfg.critic}, expected shared")
    if cfg.with_vtrace and cfg.normalize_returns:
        raise ConfigError("--normalize_returns=True does not go with --with_vtrace=True: set one of them to False")
    if cfg.with_vtrace and cfg.recurrence != cfg.rollout:
        raise ConfigError(f"--recurrence is {cfg.recurrence}, expected --rollout = {cfg.rollout} with V-trace")
    if cfg.batch_size % cfg.rollout:
        raise ConfigError(f"--batch_size is {cfg.batch_size}, expected a multiple of --rollout = {cfg.rollout}")
    if cfg.batched_sampling and cfg.num_workers < cfg.num_policies:
        raise ConfigError(
            f"--num_workers is {cfg.num_workers}, expected at least --num_policies = {cfg.num_policies}: "
            "with batched sampling a worker plays for one policy, and one without workers would never be trained"
        )
    if cfg.batched_sampling:
        batch = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
        if math.gcd(batch, cfg.vector_size) != min(batch, cfg.vector_size):
            raise ConfigError(
                f"rollouts an update (batch_size / rollout * num_batches_per_epoch = {batch}) and environments a "
                f"vector (num_envs_per_worker / worker_num_splits = {cfg.vector_size}): one must divide the other"
            )


def _check_normalization(cfg: AttrDict) -> None:
    if not cfg.with_vtrace:
        for name, off in (("reward_treatment", ("clip", "none")), ("popart", (False,)), ("critic", ("shared",)),
                          ("augment_shift", (0,)), ("game_gammas", ("",)), ("random_starts", ("",))):  # fmt: skip
            if cfg[name] not in off:
                raise ConfigError(f"--{name}={cfg[name]} needs --with_vtrace=True, but it is False")
    if cfg.popart and cfg.balance_games:
        raise ConfigError("--popart=True does not go with --balance_games=True: set one of them to False")
    if not 0 < cfg.popart_step_size <= 1:
        raise ConfigError(f"--popart_step_size is {cfg.popart_step_size}, expected above 0 and at most 1")
    if cfg.reward_treatment == "return_norm" and max(game_discounts(cfg)) == 1:
        flag = "gamma" if cfg.gamma == 1 else "game_gammas"
        raise ConfigError(
            f"--{flag} is {cfg[flag]}, expected discounts of at least 0 and below 1 with --reward_treatment=return_norm"
        )
    if cfg.augment_consistency < 0 or (cfg.augment_consistency > 0 and not cfg.augment_shift):
        expected = "at least 0" if cfg.augment_consistency < 0 else "0 while --augment_shift is 0"
        raise ConfigError(f"--augment_consistency is {cfg.augment_consistency}, expected {expected}")
    if not 0 <= cfg.augment_shift < IMAGE_SHAPE[-1]:
        raise ConfigError(f"--augment_shift is {cfg.augment_shift}, expected 0 to {IMAGE_SHAPE[-1] - 1}")
