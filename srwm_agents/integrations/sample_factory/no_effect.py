"""Flags that would change nothing: refused, so that nobody waits for what they were to bring about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from srwm_agents.envs.mirrors import MIRRORS, can_be_mirrored
from srwm_agents.integrations.sample_factory.request import ConfigError
from srwm_agents.integrations.sample_factory.suites import suite_of

ONLY_VALUE: dict[str, tuple[Any, str]] = {
    "algo": ("APPO", "the only algorithm"),
    "env_frameskip": (1, "every frame is shown, and frames would be counted wrongly"),
    "env_framestack": (1, "frames are not stacked; the core is the memory"),
    "pixel_format": ("CHW", "what images arrive in"),
    "use_record_episode_statistics": (False, "episodes are counted anyway"),
    "use_env_info_cache": (False, "there is no cache: spaces are asked for at each start"),
    "env_gpu_actions": (False, "environments run on the CPU"),
    "summaries_use_frameskip": (True, "no frame is skipped"),
}
"""Flags of Sample Factory that training does not honour: the value that it goes by, and why."""


class Needs(NamedTuple):
    """Flags that act only under a condition."""

    condition: Callable[[Any], bool]
    """On a finished configuration."""
    expected: str
    """The condition as flags."""
    flags: tuple[str, ...]


OF_A_CRITIC = (
    *("advantage_loss_coeff", "advantage_baseline", "value_gradient_scale"),
    *("critic_every", "critic_lr_scale"),
)
"""Flags that need a critic that is not shared."""

CONDITIONS = (
    Needs(
        lambda cfg: cfg.with_vtrace,
        "--with_vtrace=True",
        ("vtrace_rho", "vtrace_c", "vtrace_lambda", "policy_loss", "loss_reduction", "normalize_advantages",
         "balance_games", *OF_A_CRITIC),
    ),
    Needs(lambda cfg: not cfg.with_vtrace, "--with_vtrace=False", ("gae_lambda", "ppo_clip_value")),
    Needs(
        lambda cfg: cfg.policy_loss == "ppo" or not cfg.with_vtrace, "--policy_loss=ppo", ("ppo_clip_ratio",)
    ),
    Needs(lambda cfg: cfg.critic != "shared", "--critic=detached or separate", OF_A_CRITIC),
    Needs(lambda cfg: cfg.advantage_loss_coeff > 0, "--advantage_loss_coeff above 0", ("advantage_baseline",)),
    Needs(lambda cfg: can_be_mirrored(cfg.tasks), f"one of --games={','.join(MIRRORS)}", ("mirror",)),
    Needs(lambda cfg: cfg.optimizer != "lamb", "--optimizer=adam or rmsprop", ("critic_lr_scale",)),
    Needs(lambda cfg: cfg.popart, "--popart=True", ("popart_step_size",)),
    Needs(lambda cfg: cfg.optimizer in ("adam", "lamb"), "--optimizer=adam or lamb",
          ("adam_eps", "adam_beta1", "adam_beta2")),
    Needs(lambda cfg: cfg.optimizer == "rmsprop", "--optimizer=rmsprop",
          ("rmsprop_alpha", "rmsprop_eps", "rmsprop_momentum")),
    Needs(lambda cfg: cfg.lr_schedule.startswith("kl_adaptive"), "--lr_schedule=kl_adaptive_minibatch or _epoch",
          ("lr_schedule_kl_threshold", "lr_adaptive_min", "lr_adaptive_max")),
    Needs(lambda cfg: cfg.device == "gpu", "--device=gpu", ("mixed_precision", "actor_worker_gpus")),
    Needs(lambda cfg: not cfg.batched_sampling, "--batched_sampling=False",
          ("decorrelate_envs_on_one_worker", "pbt_mix_policies_in_one_env")),
    Needs(lambda cfg: not (cfg.in_process or cfg.serial_mode), "--serial_mode=False and --in_process=False",
          ("set_workers_cpu_affinity", "force_envs_single_thread", "default_niceness",
           "decorrelate_experience_max_seconds")),
    Needs(lambda cfg: not cfg.in_process, "--in_process=False", ("policy_workers_per_policy",)),
    Needs(lambda cfg: cfg.with_wandb, "--with_wandb=True",
          ("wandb_user", "wandb_project", "wandb_group", "wandb_job_type", "wandb_tags")),
    Needs(lambda cfg: cfg.with_pbt, "--with_pbt=True",
          ("pbt_mix_policies_in_one_env", "pbt_period_env_steps", "pbt_start_mutation", "pbt_replace_fraction",
           "pbt_mutation_rate", "pbt_replace_reward_gap", "pbt_replace_reward_gap_absolute", "pbt_optimize_gamma",
           "pbt_target_objective", "pbt_perturb_min", "pbt_perturb_max")),
    Needs(lambda cfg: cfg.normalize_input, "--normalize_input=True", ("normalize_input_keys",)),
)  # fmt: skip
"""Flags that act only with others. Presets and defaults set them for all cases: only what is typed counts."""

IGNORED = {
    "adaptive_stddev": "a policy's head gives the deviations too",
    "continuous_tanh_scale": "actions are clipped to their range",
    "initial_stddev": "it is half of an action's range",
}
"""Flags of Sample Factory that its own models have a use for."""

METRICS = ("normalised_score", "reward", "len")
"""What ``--save_best_metric`` can be; Sample Factory would save nothing by a name that it does not know."""


def check_effects(cfg: Any, typed: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse flags that change nothing.

    Args:
        cfg: the finished configuration.
        typed: the flags of this command line.
        defaults: the flags' own, which may be typed anywhere.

    Raises:
        ConfigError: the first flag without effect, and what it needs.
    """
    for name, (value, why) in ONLY_VALUE.items():
        if cfg[name] != value:
            raise ConfigError(f"--{name} is {cfg[name]}, allowed: {value} ({why})")
    if cfg.save_best_metric not in METRICS:
        raise ConfigError(f"--save_best_metric is {cfg.save_best_metric!r}, allowed: {', '.join(METRICS)}")
    typed = {name: value for name, value in typed.items() if value != defaults.get(name)}
    for name, why in {**IGNORED, **suite_of(cfg).ignored}.items():
        if name in typed:
            raise ConfigError(f"--{name} has no effect: {why}; leave it out")
    for condition, expected, flags in CONDITIONS:
        for name in flags:
            if name in typed and not condition(cfg):
                raise ConfigError(f"--{name} has no effect without {expected}; leave it out")
