"""``--env``: any Gymnasium environment, from the flags to an agent that plays in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium import spaces
from small_environments import ACTIONS

import train_rl
from srwm_agents import AgentPolicy, load_agent
from srwm_agents.envs.flat import FlatObservations
from srwm_agents.integrations.sample_factory import register
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.checks import check_spaces
from srwm_agents.integrations.sample_factory.config import ConfigError, Machine, finish_config
from srwm_agents.integrations.sample_factory.environment import choice_space, choices_of
from srwm_agents.integrations.sample_factory.model import export_agent
from srwm_agents.integrations.sample_factory.runner import environment_info
from srwm_agents.spaces.gymnasium_spaces import actions_of

from sample_factory.model.actor_critic import create_actor_critic  # isort: skip

SMALL = "small_environments:test/Small-v0"
FLAGS = [
    *("--device=cpu", "--seed=0", "--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32"),
    *("--encoder_conv_architecture=convnet_atari", "--encoder_conv_mlp_layers", "16", "--encoder_mlp_layers", "12"),
    *("--num_workers=1", "--num_envs_per_worker=8", "--rollout=8", "--batch_size=32", "--stats_avg=20"),
]


def flags_of(folder: Path, observations: str, actions: str, *more: str) -> list[str]:
    kwargs = json.dumps({"observations": observations, "actions": actions})
    return [*FLAGS, f"--env={SMALL}", f"--env_kwargs={kwargs}", f"--train_dir={folder}", "--experiment=e", *more]


@pytest.fixture
def finish(tmp_path):
    """Flags -> a finished configuration."""

    def finish(*flags: str, machine: Machine | None = None) -> Any:
        arguments = [*FLAGS, f"--train_dir={tmp_path}", "--experiment=e", *flags]
        return finish_config(parse_train_args(arguments), machine)

    return finish


def test_what_follows_from_another_environment(finish, tmp_path) -> None:
    cfg = finish("--env=CartPole-v1", "--normalize_input=True", "--reward_treatment=none")
    assert (cfg.tasks, cfg.save_best_metric, cfg.env_threads) == (["CartPole-v1"], "reward", 0)
    assert cfg.normalize_input_keys is None
    assert cfg.reward_clip == 1e30
    on_a_cpu = finish("--env=CartPole-v1", "--in_process=True", machine=Machine(cuda=False, cores=16))
    assert on_a_cpu.env_threads == 8  # of each of two vectors, of which one steps while the other is acted for
    procgen = finish_config(parse_train_args([f"--train_dir={tmp_path}", "--experiment=p", "--games=maze"]))
    assert (procgen.tasks, procgen.games, procgen.encoder_mlp_layers) == (["maze"], "maze", [])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--env=CartPol-v1"],
            "--env is 'CartPol-v1', allowed: procgen, or the id of a Gymnasium environment: no",
        ),
        (["--env=CartPole-v1", "--start_level=3"], "--start_level has no effect: it is for --env=procgen"),
        (["--env=CartPole-v1", "--game_gammas=CartPole-v1=.9"], "--game_gammas has no effect: it is for --env=procgen"),
        (["--env=CartPole-v1", "--random_starts=maze=9"], "--random_starts has no effect: it is for --env=procgen"),
        (["--env=CartPole-v1", "--with_vtrace=False"], "--with_vtrace is False, expected True with --env=CartPole-v1"),
        (
            ["--env=CartPole-v1", "--save_best_metric=normalised_score"],
            "--save_best_metric is 'normalised_score', allowed with --env=CartPole-v1: reward, len",
        ),
        (
            ["--env=CartPole-v1", "--encoder_mlp_layers", "0"],
            "--encoder_mlp_layers is 0, expected widths of at",
        ),
    ],
)
def test_flags_that_do_not_go_with_it_are_named(finish, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        finish(*flags)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_arguments_that_are_no_object_are_named(text: str, capsys) -> None:
    with pytest.raises(SystemExit) as error:
        parse_train_args([f"--env_kwargs={text}"])
    assert error.value.code == 1
    assert "is no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "kwargs", "message"),
    [
        (["--augment_shift=2"], {}, "--augment_shift is 2, expected 0: .* gives no image"),
        (["--obs_scale=2"], {}, "--obs_scale is 2.0, expected 1: .* gives no image"),
        (["--critic=detached"], {"actions": "multi"}, "--critic is 'detached', expected shared: .* no single Discrete"),
        (
            ["--exploration_loss=symmetric_kl"],
            {"actions": "box"},
            "--exploration_loss is 'symmetric_kl', expected",
        ),
    ],
)
def test_settings_that_the_spaces_do_not_allow_are_named(finish, flags, kwargs, message: str) -> None:
    cfg = finish(f"--env={SMALL}", f"--env_kwargs={json.dumps(kwargs)}", *flags)
    register(cfg.env)
    with pytest.raises(ConfigError, match=message):
        check_spaces(cfg, environment_info(cfg))


@pytest.mark.parametrize("name", ACTIONS)
def test_sample_factory_knows_what_is_chosen(name: str) -> None:
    spec = actions_of(ACTIONS[name])
    known = choices_of(choice_space(spec))
    assert (known.count, known.parameters, known.sizes) == (spec.count, spec.parameters, spec.sizes)


@pytest.mark.parametrize(
    ("observations", "actions", "flags"),
    [
        ("tuple", "multi", []),
        ("dict", "box", ["--critic=shared", "--normalize_input=True"]),
        ("discrete", "discrete", ["--critic=separate", "--last_reward=False"]),
    ],
)
def test_the_exported_agent_computes_what_the_learner_does(finish, observations, actions, flags: list[str]) -> None:
    kwargs = json.dumps({"observations": observations, "actions": actions})
    cfg = finish(f"--env={SMALL}", f"--env_kwargs={kwargs}", "--last_action=True", *flags)
    register(cfg.env)
    info = environment_info(cfg)
    torch.manual_seed(0)
    model: Any = create_actor_critic(cfg, info.obs_space, info.action_space)
    assert isinstance(info.obs_space, spaces.Dict)
    batch = {}
    for name, space in info.obs_space.spaces.items():
        samples = np.stack([space.sample() for _ in range(12)])
        samples[:, ...] = np.nan_to_num(samples) if samples.dtype.kind == "f" else samples
        batch[name] = torch.from_numpy(samples)
    model.train()
    model.normalize_obs(dict(batch))  # running statistics, if there are any
    model.eval()
    seen = model.normalize_obs(dict(batch))
    normalised = {name: x.type(model.type_for_input_tensor(name)) for name, x in seen.items()}
    resets = torch.zeros(3, 4, dtype=torch.bool)
    state = torch.zeros(3, cfg.rnn_size)
    evaluation = model.evaluate({name: x.unflatten(0, (3, 4)) for name, x in normalised.items()}, state, resets)
    agent = export_agent(cfg, model, info.obs_space, {})
    logits, values, _ = agent({name: x.unflatten(0, (3, 4)) for name, x in batch.items()}, state, resets)
    torch.testing.assert_close(logits[:, :-1], evaluation.logits)
    expected = evaluation.values if evaluation.policy_values is None else evaluation.policy_values
    torch.testing.assert_close(values[:, : expected.shape[1]], expected)
    assert agent.config.environment == {"env": SMALL, "env_kwargs": {"observations": observations, "actions": actions}}
    assert agent.actions == actions_of(ACTIONS[actions])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("observations", "actions", "flags"),
    [
        ("tuple", "multi", ["--in_process=True", "--env_threads=2", "--last_action=True", "--episode_step=True"]),
        ("dict", "box", ["--serial_mode=True", "--normalize_input=True", "--value_bootstrap=True"]),
        ("image", "discrete", ["--serial_mode=True", "--augment_shift=2"]),
        ("vector", "discrete", ["--serial_mode=False", "--last_reward=False"]),
        ("discrete", "multi", ["--serial_mode=True", "--batched_sampling=False"]),
    ],
)
def test_training_leaves_an_agent_that_plays(
    observations: str, actions: str, flags: list[str], tmp_path, capsys
) -> None:
    run = flags_of(tmp_path, observations, actions, "--experiment_summaries_interval=1", *flags)
    assert train_rl.main([*run, "--train_for_env_steps=1000"]) == 0
    curves = pd.read_csv(tmp_path / "e/curves.csv")
    assert set(curves["game"]) == {SMALL}
    assert curves["normalised_score"].isna().all()
    assert curves["mean_length"].between(3, 5).all()
    assert (tmp_path / "e/learning_curves.png").is_file()
    agent = load_agent(tmp_path / "e/agent")
    extras = {name: name in agent.config.extras for name in ("last_action", "last_reward", "episode_step")}
    assert extras == {
        "last_action": "--last_action=True" in flags,
        "last_reward": "--last_reward=False" not in flags,
        "episode_step": "--episode_step=True" in flags,
    }
    kwargs: Any = {"observations": observations, "actions": actions}
    env = FlatObservations(gymnasium.make(SMALL, disable_env_checker=True, **kwargs), **extras)
    policy = AgentPolicy(agent, env, deterministic=False, seed=0)
    observation, _ = env.reset(seed=0)
    begins = True
    for _ in range(6):
        observation, _, terminated, truncated, _ = env.step(policy(observation, begins))  # which checks its actions
        begins = terminated or truncated
        if begins:
            observation, _ = env.reset()

    capsys.readouterr()
    assert train_rl.main([*run, "--train_for_env_steps=1500"]) == 0
    assert "resuming at" in capsys.readouterr().out
    assert train_rl.main([*run, "--env=CartPole-v1", "--env_kwargs={}"]) == 1
    assert f"--env is 'CartPole-v1', but experiment 'e' was begun with '{SMALL}'" in capsys.readouterr().err


def test_a_plain_observation_is_enough_for_an_agent_that_sees_nothing_else(finish) -> None:
    cfg = finish("--env=FrozenLake-v1", "--last_reward=False")
    register(cfg.env)
    info = environment_info(cfg)
    model: Any = create_actor_critic(cfg, info.obs_space, info.action_space)
    assert isinstance(info.obs_space, spaces.Dict)
    agent = export_agent(cfg, model, info.obs_space, {})
    env = gymnasium.make("FrozenLake-v1")
    policy = AgentPolicy(agent, env)
    observation, _ = env.reset(seed=0)
    action = policy(observation, True)
    assert env.action_space.contains(action)
    np.testing.assert_array_equal(agent.act(np.array([observation, 3]))[0][0], action)


@pytest.mark.parametrize("engine", ["--serial_mode=True", pytest.param("--in_process=True", marks=pytest.mark.slow)])
def test_an_environment_that_fails_ends_the_run_with_one_line(engine: str, tmp_path, capsys) -> None:
    flags = [*FLAGS, f"--env={SMALL}", '--env_kwargs={"fails_at": 2}', f"--train_dir={tmp_path}", "--experiment=e"]
    assert train_rl.main([*flags, engine, "--train_for_env_steps=1000"]) == 1
    error = capsys.readouterr().err
    assert "Small-v0 raised RuntimeError: out of order" in error
    assert "Traceback" not in error
    assert not (tmp_path / "e/config.json").exists()  # nothing was learned: the name is free
    corrected = [*FLAGS, f"--env={SMALL}", "--core=gru", f"--train_dir={tmp_path}", "--experiment=e"]
    assert train_rl.main([*corrected, engine, "--train_for_env_steps=100"]) == 0


def test_an_environment_with_other_spaces_is_refused_with_one_line(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(ACTIONS, "text", spaces.Text(3))
    assert train_rl.main(flags_of(tmp_path, "vector", "text", "--serial_mode=True")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the action space is Text" in error
    assert "allowed: Discrete, MultiDiscrete, MultiBinary, or a Box of real numbers" in error
