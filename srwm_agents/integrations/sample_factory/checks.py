"""Settings that cannot work, alone or together; Sample Factory itself would find few of them, and late."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.envs.games import IMAGE_SHAPE, MAX_LEVEL
from srwm_agents.envs.random_starts import MAX_STEPS
from srwm_agents.integrations.sample_factory.deriving import sizes_of
from srwm_agents.integrations.sample_factory.per_game import game_discounts, game_value_weights, random_starts
from srwm_agents.integrations.sample_factory.request import ConfigError, Request
from srwm_agents.integrations.sample_factory.sizes import one_divides
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.settings import Range

RANGES = {
    Range(1): (
        *("num_workers", "num_envs_per_worker", "rollout", "batch_size", "num_batches_per_epoch", "num_epochs"),
        *("num_policies", "critic_every", "train_for_env_steps", "worker_num_splits", "policy_workers_per_policy"),
        *("num_batches_to_accumulate", "max_policy_lag", "stats_avg", "keep_checkpoints"),
        *("train_for_seconds", "save_every_sec", "save_best_every_sec", "experiment_summaries_interval"),
        *("flush_summaries_interval", "heartbeat_interval", "heartbeat_reporting_interval"),
    ),
    Range(0): (
        *("learning_rate", "vtrace_rho", "vtrace_c", "exploration_loss_coeff", "value_loss_coeff", "kl_loss_coeff"),
        *(
            "advantage_loss_coeff",
            "critic_lr_scale",
            "value_gradient_scale",
            "augment_consistency",
            "max_grad_norm",
            "policy_head_scale",
            "policy_init_gain",
        ),
        *("save_best_after", "decorrelate_experience_max_seconds", "lr_adaptive_min"),
    ),
    Range(0, open_low=True): (
        *("reward_clip", "reward_scale", "obs_scale", "adam_eps", "rmsprop_eps", "ppo_clip_ratio", "ppo_clip_value"),
        *("lr_adaptive_max", "lr_schedule_kl_threshold"),
    ),
    Range(0, 1): ("gamma", "gae_lambda", "vtrace_lambda", "pbt_replace_fraction", "pbt_mutation_rate"),
    Range(0, 1, open_high=True): ("adam_beta1", "adam_beta2", "rmsprop_alpha", "rmsprop_momentum"),
    Range(0, 1, open_low=True): ("popart_step_size",),
    Range(0, IMAGE_SHAPE[-1] - 1): ("augment_shift",),
    Range(0, MAX_LEVEL): ("seed",),
    Range(0, MAX_STEPS): ("spread_starts",),
    Range(-1): ("env_threads", "max_pending_iterations", "save_milestones_sec", "recurrence"),
    Range(-20, 19): ("default_niceness",),
    Range(-1e6, 1e6): ("obs_subtract_mean",),
}
"""The allowed numbers of settings; those of a core are :class:`.CoreConfig`'s own."""


@dataclass(frozen=True)
class Needs:
    """A setting whose value is none of ``off`` needs another to have the value ``expected``."""

    name: str
    other: str
    expected: Any
    off: Collection[Any] = (False,)

    def __call__(self, cfg: Any) -> str | None:
        if cfg[self.name] in self.off or cfg[self.other] == self.expected:
            return None
        return f"--{self.name}={cfg[self.name]} needs --{self.other}={self.expected}, but it is {cfg[self.other]}"


@dataclass(frozen=True)
class Apart:
    """Two settings that cannot have these values together."""

    name: str
    value: Any
    other: str
    other_value: Any
    instead: str = "set one of them to False"

    def __call__(self, cfg: Any) -> str | None:
        if cfg[self.name] != self.value or cfg[self.other] != self.other_value:
            return None
        return f"--{self.name}={self.value} does not go with --{self.other}={self.other_value}: {self.instead}"


def check_numbers(request: Request) -> None:
    """Numbers out of their range, before anything is derived from them.

    Raises:
        ConfigError: the first of them.
    """
    for allowed, names in RANGES.items():
        for name in names:
            if request[name] is not None and request[name] not in allowed:
                raise ConfigError(f"--{name} is {request[name]}, expected {allowed}")
    for name in ("encoder_conv_mlp_layers", "encoder_mlp_layers", "decoder_mlp_layers"):
        if any(width < 1 for width in request[name]):
            raise ConfigError(f"--{name} is {' '.join(map(str, request[name]))}, expected widths of at least 1")


def check(cfg: Any) -> None:
    """A finished configuration, settings against one another.

    Raises:
        ConfigError: the first that cannot work.
    """
    game_discounts(cfg)
    game_value_weights(cfg)
    random_starts(cfg)
    for rule in RULES:
        if message := rule(cfg):
            raise ConfigError(message)


def check_spaces(cfg: Any, info: Any) -> None:
    """Settings against the environment's spaces, once it has been made; ``info``: Sample Factory's ``EnvInfo``.

    Raises:
        ConfigError: the first that cannot work.
    """
    observations, actions = info.obs_space.spaces, info.action_space
    image = observations.get(IMAGE_KEY)
    has_image = image is not None and len(image.shape) == 3
    if cfg.augment_shift and not has_image:
        raise ConfigError(f"--augment_shift is {cfg.augment_shift}, expected 0: {cfg.env} gives no image")
    for name, off in (("obs_subtract_mean", 0), ("obs_scale", 1)):
        if cfg[name] != off and not has_image:
            raise ConfigError(f"--{name} is {cfg[name]}, expected {off}: {cfg.env} gives no image")
    if cfg.critic != "shared" and not isinstance(actions, spaces.Discrete):
        raise ConfigError(f"--critic is {cfg.critic!r}, expected shared: {cfg.env} takes no single Discrete action")
    if cfg.exploration_loss != "entropy" and isinstance(actions, spaces.Box):
        raise ConfigError(f"--exploration_loss is {cfg.exploration_loss!r}, expected entropy: {cfg.env} takes a Box")


def _environment(cfg: Any) -> str | None:
    return suite_of(cfg).wrong(cfg)


def _graphs_on_a_cpu(cfg: Any) -> str | None:
    if cfg.cuda_graphs and cfg.device != "gpu":
        return "--cuda_graphs is True, but --device is 'cpu', expected 'gpu'"
    return None


def _frames_stay_on_the_gpu(cfg: Any) -> str | None:
    if cfg.in_process and cfg.device == "gpu" and not (cfg.actor_worker_gpus and cfg.env_gpu_observations):
        return "--in_process=True needs --actor_worker_gpus 0 and --env_gpu_observations=True on a GPU"
    return None


def _every_game_has_its_share(cfg: Any) -> str | None:
    games = len(cfg.tasks)
    if cfg.vector_size % games:
        return (
            f"--num_envs_per_worker / --worker_num_splits is {cfg.vector_size}, "
            f"expected a multiple of {games} (the number of games){_advice(cfg)}"
        )
    return None


def _one_memory(cfg: Any) -> str | None:
    if not cfg.actor_critic_share_weights:
        return (
            "--actor_critic_share_weights is False, allowed: True (one memory serves actor and critic; "
            "--critic=separate gives the critic an encoder of its own)"
        )
    return None


def _popart_is_the_shared_critics(cfg: Any) -> str | None:
    if cfg.popart and cfg.critic != "shared":
        return f"--popart=True does not go with --critic={cfg.critic}, expected shared"
    return None


def _returns_have_a_deviation(cfg: Any) -> str | None:
    if cfg.reward_treatment == "return_norm" and max(game_discounts(cfg)) == 1:
        flag = "gamma" if cfg.gamma == 1 else "game_gammas"
        return (
            f"--{flag} is {cfg[flag]}, expected discounts of at least 0 and below 1 with --reward_treatment=return_norm"
        )
    return None


def _moved_images_to_be_consistent_with(cfg: Any) -> str | None:
    if cfg.augment_consistency > 0 and not cfg.augment_shift:
        return f"--augment_consistency is {cfg.augment_consistency}, expected 0 while --augment_shift is 0"
    return None


def _whole_rollouts(cfg: Any) -> str | None:
    if cfg.with_vtrace and cfg.recurrence != cfg.rollout:
        return f"--recurrence is {cfg.recurrence}, expected --rollout = {cfg.rollout} with V-trace"
    if cfg.batch_size % cfg.rollout:
        return f"--batch_size is {cfg.batch_size}, expected a multiple of --rollout = {cfg.rollout}{_advice(cfg)}"
    return None


def _every_policy_has_a_worker(cfg: Any) -> str | None:
    if cfg.batched_sampling and cfg.num_workers < cfg.num_policies:
        return (
            f"--num_workers is {cfg.num_workers}, expected at least --num_policies = {cfg.num_policies}: "
            "with batched sampling a worker plays for one policy, and one without workers would never be trained"
        )
    return None


def _vectors_fit_updates(cfg: Any) -> str | None:
    rollouts = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
    if cfg.batched_sampling and not one_divides(rollouts, cfg.vector_size):
        return (
            f"rollouts an update (batch_size / rollout * num_batches_per_epoch = {rollouts}) and environments a "
            f"vector (num_envs_per_worker / worker_num_splits = {cfg.vector_size}): "
            f"one must divide the other{_advice(cfg)}"
        )
    return None


def _advice(cfg: Any) -> str:
    """Sizes that fit, for the end of a message on those that do not."""
    return sizes_of(Request(dict(cfg.request, games=cfg.games), frozenset())).advice()


def learners_stay_equal(cfg: Any, processes: int) -> str | None:
    """What would make processes that learn together differ, each of which sees a part of the data."""
    if processes > 1 and cfg.normalize_input:
        return (
            "--normalize_input is True, allowed with several learner processes: False (their statistics would differ)"
        )
    if processes > 1 and cfg.lr_schedule.startswith("kl_adaptive"):
        return f"--lr_schedule is {cfg.lr_schedule}, allowed with several learner processes: constant, linear_decay"
    return None


def _ranks_learn_together(cfg: Any) -> str | None:
    if cfg.world_size == 1:
        return None
    for name, expected in (("in_process", True), ("with_vtrace", True)):
        if cfg[name] != expected:
            flag = "serial_mode" if name == "in_process" and "in_process" not in cfg.given else name
            value = cfg[name] if flag == name else True
            return f"--{flag} is {value}, allowed in the processes of torchrun: {not value}"
    return learners_stay_equal(cfg, cfg.world_size)


_NO_GRAPHS = "set --cuda_graphs=False"

RULES: tuple[Callable[[Any], str | None], ...] = (
    _environment,
    _ranks_learn_together,
    Needs("reward_treatment", "with_vtrace", True, off=("clip", "none")),
    Needs("popart", "with_vtrace", True),
    Needs("critic", "with_vtrace", True, off=("shared",)),
    Needs("augment_shift", "with_vtrace", True, off=(0,)),
    Needs("game_gammas", "with_vtrace", True, off=("",)),
    Needs("game_value_coeffs", "with_vtrace", True, off=("",)),
    Needs("random_starts", "with_vtrace", True, off=("",)),
    Apart("popart", True, "balance_games", True),
    _returns_have_a_deviation,
    _moved_images_to_be_consistent_with,
    _graphs_on_a_cpu,
    Apart("cuda_graphs", True, "with_pbt", True, _NO_GRAPHS),
    Apart("cuda_graphs", True, "optimizer", "lamb", _NO_GRAPHS),
    Needs("in_process", "batched_sampling", True),
    Needs("in_process", "async_rl", True),
    Needs("in_process", "num_policies", 1),
    Needs("in_process", "with_pbt", False),
    Needs("max_pending_iterations", "in_process", True, off=(-1,)),
    _frames_stay_on_the_gpu,
    _every_game_has_its_share,
    _one_memory,
    _popart_is_the_shared_critics,
    Apart("normalize_returns", True, "with_vtrace", True),
    _whole_rollouts,
    _every_policy_has_a_worker,
    _vectors_fit_updates,
)
"""In the order in which they are looked at: each returns what is wrong, or None."""
