"""Flags that would change nothing are refused; sizes that do not fit are answered with ones that do."""

from __future__ import annotations

import argparse
import re

import pytest

from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.checks import RANGES
from srwm_agents.integrations.sample_factory.config import ConfigError, finish_config
from srwm_agents.integrations.sample_factory.core import SIZE_FLAGS
from srwm_agents.integrations.sample_factory.no_effect import CONDITIONS, IGNORED, ONLY_VALUE
from srwm_agents.integrations.sample_factory.sizes import Sizes

from sample_factory.cfg import cfg as sf_cfg  # isort: skip

HONOURED = set(
    re.findall(
        r"\w+",
        """
        help env experiment train_dir restart_behavior device seed num_policies async_rl serial_mode
        batched_sampling num_batches_to_accumulate worker_num_splits max_policy_lag num_workers
        num_envs_per_worker batch_size num_batches_per_epoch num_epochs rollout recurrence shuffle_minibatches
        gamma reward_scale reward_clip normalize_returns exploration_loss_coeff value_loss_coeff kl_loss_coeff
        exploration_loss with_vtrace optimizer max_grad_norm learning_rate lr_schedule obs_subtract_mean
        obs_scale normalize_input log_to_file experiment_summaries_interval flush_summaries_interval stats_avg
        heartbeat_interval heartbeat_reporting_interval train_for_env_steps train_for_seconds save_every_sec
        keep_checkpoints load_checkpoint_kind save_milestones_sec save_best_every_sec save_best_metric
        save_best_after benchmark encoder_conv_architecture encoder_conv_mlp_layers use_rnn decoder_mlp_layers
        nonlinearity policy_initialization policy_init_gain actor_critic_share_weights env_gpu_observations
        with_wandb with_pbt encoder_mlp_layers value_bootstrap
        """,
    )
)
"""Flags of Sample Factory that act, or whose values that cannot are refused elsewhere."""


def test_every_flag_of_sample_factory_acts_or_is_refused() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    for name in ("basic_cli", "rl", "model", "default_env", "wandb", "pbt"):
        getattr(sf_cfg, f"add_{name}_args")(parser)
    with_conditions = {name for condition in CONDITIONS for name in condition.flags}
    known = {*HONOURED, *ONLY_VALUE, *IGNORED, *SIZE_FLAGS, *with_conditions}
    assert {action.dest for action in parser._actions} <= known


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env_frameskip=4"], "--env_frameskip is 4, allowed: 1 (every frame is shown"),
        (["--env_framestack=4"], "--env_framestack is 4, allowed: 1"),
        (["--pixel_format=HWC"], "--pixel_format is HWC, allowed: CHW"),
        (["--algo=DQN"], "--algo is DQN, allowed: APPO"),
        (["--value_bootstrap=True"], "--value_bootstrap is True, allowed: False"),
        (["--use_record_episode_statistics=True"], "--use_record_episode_statistics is True, allowed: False"),
        (["--encoder_mlp_layers", "64"], "--encoder_mlp_layers has no effect: observations are images"),
        (["--initial_stddev=2"], "--initial_stddev has no effect: it is half of an action's range"),
        (["--episode_step=True"], "--episode_step has no effect: it is for --env=ID; leave it out"),
        (["--last_reward=False"], "--last_reward has no effect: agents for Procgen always see the last reward"),
        (['--env_kwargs={"size": 1}'], "--env_kwargs has no effect: it is for --env=ID"),
        (["--games=plunder", "--mirror=True"], "--mirror has no effect without one of --games=bigfish,fruitbot,"),
        (
            ["--advantage_loss_coeff=0", "--critic=separate", "--advantage_baseline=True"],
            "--advantage_baseline has no effect without --advantage_loss_coeff above 0",
        ),
        (["--value_gradient_scale=.1"], "--value_gradient_scale has no effect without --critic=detached or separate"),
        (["--env=CartPole-v1"], "--games has no effect: it is for --env=procgen"),
        (["--gae_lambda=.5"], "--gae_lambda has no effect without --with_vtrace=False"),
        (["--vtrace_rho=.5", "--with_vtrace=False"], "--vtrace_rho has no effect without --with_vtrace=True"),
        (["--ppo_clip_ratio=.3"], "--ppo_clip_ratio has no effect without --policy_loss=ppo"),
        (["--rmsprop_eps=.1"], "--rmsprop_eps has no effect without --optimizer=rmsprop"),
        (["--optimizer=rmsprop", "--adam_eps=.1"], "--adam_eps has no effect without --optimizer=adam or lamb"),
        (["--lr_adaptive_max=1"], "--lr_adaptive_max has no effect without --lr_schedule=kl_adaptive_minibatch"),
        (["--wandb_project=p"], "--wandb_project has no effect without --with_wandb=True"),
        (["--pbt_mutation_rate=.5"], "--pbt_mutation_rate has no effect without --with_pbt=True"),
        (["--popart_step_size=.5"], "--popart_step_size has no effect without --popart=True"),
        (["--mixed_precision=bf16"], "--mixed_precision has no effect without --device=gpu"),
        (["--default_niceness=3"], "--default_niceness has no effect without --serial_mode=False"),
        (["--save_best_metric=score"], "--save_best_metric is 'score', allowed: normalised_score, reward, len"),
        (["--num_levels=0", "--start_level=7"], "start_level is 7, but num_levels is 0"),
        (["--learning_rate=inf"], "--learning_rate is inf, expected at least 0"),
        (["--train_for_seconds=-1"], "--train_for_seconds is -1, expected at least 1"),
        (["--save_every_sec=0"], "--save_every_sec is 0, expected at least 1"),
        (["--seed=-1"], "--seed is -1, expected from 0 to 2147483647"),
        (["--adam_beta1=1"], "--adam_beta1 is 1.0, expected at least 0 and below 1"),
        (["--decoder_mlp_layers", "0"], "--decoder_mlp_layers is 0, expected widths of at least 1"),
        (["--experiment=.."], "--experiment is '..', expected the name of a folder"),
        (["--experiment="], "--experiment is empty"),
    ],
)
def test_settings_without_effect_or_out_of_range_are_named(make_cfg, flags, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_cfg(*flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_same_flags_are_taken_where_they_act_or_say_the_default(make_cfg) -> None:
    make_cfg("--optimizer=rmsprop", "--rmsprop_eps=.1")
    make_cfg("--env_frameskip=1", "--gae_lambda=.95", "--wandb_project=sample_factory")
    make_cfg("--policy_loss=ppo", "--ppo_clip_ratio=.3")


def test_ranges_are_of_settings_that_there_are() -> None:
    settings = vars(parse_train_args([]))
    assert all(name in settings for names in RANGES.values() for name in names)


@pytest.mark.parametrize("environments", [1, 7, 100, 768])
@pytest.mark.parametrize("batch", [1, 100, 1536])
def test_sizes_that_are_proposed_can_be_used(tmp_path, environments: int, batch: int) -> None:
    flags = ["--preset=fast", "--device=cpu", f"--train_dir={tmp_path}"]
    asked = [f"--num_envs_per_worker={environments}", f"--batch_size={batch}"]
    message = ""
    try:
        finish_config(parse_train_args([*flags, *asked]))
    except ConfigError as error:
        message = str(error)
    proposed = re.findall(r"--(?:num_envs_per_worker|batch_size)=\d+", message.partition("; valid: ")[2])
    assert bool(proposed) == bool(message)
    finish_config(parse_train_args([*flags, *asked, *proposed]))


def test_nearest_sizes() -> None:
    sizes = Sizes(100, 1000, 32, 2, 8, 6, batched_sampling=True)
    nearest = sizes.nearest()
    assert nearest is not None
    assert nearest.fit()
    assert (nearest.num_envs_per_worker, nearest.batch_size) == (96, 960)
    assert sizes.advice() == "; valid: --num_envs_per_worker=96 --batch_size=960"


def test_paths_are_what_a_user_typed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for typed, meant in (("~/runs", "home/runs"), ("läufe 2", "läufe 2"), ("../x", "../x")):
        assert parse_train_args([f"--train_dir={typed}"]).train_dir == str(tmp_path / meant)
    with pytest.raises(SystemExit):
        parse_train_args(["--train_dir="])
