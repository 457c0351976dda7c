"""Distributed training without a cluster: rollouts, updates, errors."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from srwm_agents.distributed.arguments import check_processes, parse_distributed_args
from srwm_agents.distributed.command import main
from srwm_agents.distributed.learner import RolloutQueue
from srwm_agents.distributed.rollouts import (
    CollectedRollout,
    RolloutCollector,
    as_tensors,
    concatenate,
    make_acting_agent,
    make_collector_environment,
)
from srwm_agents.distributed.training import collector_settings
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import ConfigError, finish_config
from srwm_agents.integrations.sample_factory.learner import SRWMLearner
from srwm_agents.integrations.sample_factory.model import portable_weights
from srwm_agents.integrations.sample_factory.standalone import make_learner, trajectories

ROOT = Path(__file__).parents[2]


def play(settings, weights, number: int) -> list[CollectedRollout]:
    """Collect rollouts in this process."""
    collector = RolloutCollector(
        make_collector_environment(settings),
        make_acting_agent(settings),
        frames_per_batch=settings.rollout * settings.environment["num_envs"],
        trust_policy=True,
        track_traj_ids=False,
        use_buffers=False,
        auto_register_policy_transforms=False,
    )
    rollouts = [collector.play(weights, version) for version in range(number)]
    collector.shutdown()
    return rollouts


@pytest.mark.parametrize("core", ["srwm", "srwm_no_carry", "feedforward"])
def test_learner_and_collectors_compute_the_same_policy(make_distributed_learner, core) -> None:
    learner = make_distributed_learner(f"--core={core}", "--policy_head_scale=1")
    rollouts = play(collector_settings(learner), learner.weights(), 20)
    assert any(rollout.arrays["dones"].any() for rollout in rollouts)
    moved = [np.abs(rollout.arrays["rnn_states"]).sum() > 0 for rollout in rollouts[1:]]
    assert all(moved) == any(moved) == (core != "feedforward")
    batch = trajectories(as_tensors(concatenate([rollout.arrays for rollout in rollouts])), learner.device)
    prepared, _, invalid = learner._prepare_batch(batch)
    assert invalid == 0
    losses = learner.update.losses(prepared)
    # The same weights, observations, states and resets give the same policy.
    torch.testing.assert_close(losses.ratios, torch.ones_like(losses.ratios), rtol=1e-4, atol=0)
    torch.testing.assert_close(losses.values, batch["values"][:, :-1], rtol=1e-3, atol=1e-4)


def test_episodes_and_observations_are_whole(make_distributed_learner) -> None:
    learner = make_distributed_learner()
    rollouts = play(collector_settings(learner), learner.weights(), 60)
    for one, other in itertools.pairwise(rollouts):
        # The observation after a rollout's last step is the next rollout's first.
        for name in ("obs", "last_reward"):
            np.testing.assert_array_equal(one.arrays["obs"][name][:, -1], other.arrays["obs"][name][:, 0])
    rewards = np.concatenate([rollout.arrays["rewards"] for rollout in rollouts], axis=1)
    dones = np.concatenate([rollout.arrays["dones"] for rollout in rollouts], axis=1)
    returns, lengths = [], []
    for row, ends in zip(rewards, dones, strict=True):
        stops = np.flatnonzero(ends) + 1
        pieces = np.split(row, stops)[:-1]
        returns += [piece.sum() for piece in pieces]
        lengths += [len(piece) for piece in pieces]
    games, reported, reported_lengths = (
        np.concatenate([rollout.episodes[i] for rollout in rollouts]) for i in range(3)
    )
    assert len(returns) > 4
    assert sorted(returns) == pytest.approx(sorted(reported))
    assert sorted(lengths) == sorted(reported_lengths)
    assert set(games) <= {0, 1}


@pytest.mark.parametrize("options", [(), ("--popart=True", "--reward_treatment=return_norm", "--augment_shift=2")])
def test_an_update_changes_weights_and_counts_frames(make_distributed_learner, small_flags, tmp_path, options) -> None:
    learner = make_distributed_learner(*options)
    before = learner.weights()
    rollout = play(collector_settings(learner), before, 1)[0]
    learner.train(trajectories(as_tensors(concatenate([rollout.arrays])), learner.device))
    assert (learner.train_step, learner.env_steps) == (1, 64)
    after = learner.weights()
    assert any((before[name] != after[name]).any() for name in before)
    # train_rl.py can resume what this command has saved.
    assert learner.save()
    flags = [*small_flags, f"--train_dir={tmp_path}", "--experiment=e", *options]
    resumed = make_learner(finish_config(parse_train_args(flags)), SRWMLearner)
    assert (resumed.train_step, resumed.env_steps) == (1, 64)
    assert resumed.actor_critic is not None
    for name, weight in portable_weights(resumed.actor_critic).items():
        np.testing.assert_array_equal(weight, after[name])


def test_bytes_a_frame_are_as_documented(make_distributed_learner) -> None:
    learner = make_distributed_learner()
    arrays = play(collector_settings(learner), learner.weights(), 1)[0].arrays
    state, steps = arrays["rnn_states"].shape[-1], 8
    leaves = [*arrays["obs"].values(), *(entry for name, entry in arrays.items() if name != "obs")]
    size = sum(leaf.nbytes for leaf in leaves) / arrays["rewards"].size
    assert size == (12288 + 8) * (steps + 1) / steps + 4 * state / steps + 85


def a_rollout(rows: int, version: int) -> CollectedRollout:
    arrays = {"rewards": np.full((rows, 2), version), "obs": {"obs": np.arange(rows)[:, None] + 10 * version}}
    return CollectedRollout(arrays, (), version, "here")


def test_the_queue_cuts_rollouts_into_batches() -> None:
    queue = RolloutQueue(4, max_lag=3)
    queue.put(a_rollout(3, version=0))
    assert queue.take(0) is None
    queue.put(a_rollout(3, version=1))
    batch = queue.take(1)
    assert batch is not None
    assert batch["obs"]["obs"][:, 0].tolist() == [0, 1, 2, 10]
    assert queue.take(1) is None
    queue.put(a_rollout(9, version=5))
    later = queue.take(5)  # the two rows of version 1 that are left are four updates behind
    assert later is not None
    assert later["obs"]["obs"][:, 0].tolist() == [50, 51, 52, 53]
    assert queue.dropped == 2
    last = queue.take(5)
    assert last is not None
    assert len(last["rewards"]) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--with_pbt=True"],
            "--with_pbt is a flag of python -m srwm_agents train that distributed training does not support",
        ),
        (["--worker_cpus=-1"], "--worker_cpus is -1.0, expected at least 0"),
        (["--games=starpilot,leper"], "unknown game 'leper'; did you mean 'leaper'?"),
        (["--num_envs_per_worker=7"], "expected a multiple of 2 (the number of games)"),
        (["--hidden_size=15"], "--core=srwm: hidden_size is 15, expected a multiple of num_heads = 2"),
    ],
)
def test_wrong_flags_are_one_line(small_flags, tmp_path, capsys, flags, message) -> None:
    assert main(["train", *small_flags, f"--train_dir={tmp_path}", "--experiment=e", *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_other_environments_are_refused(tmp_path, capsys) -> None:
    assert main(["train", "--env=CartPole-v1", f"--train_dir={tmp_path}", "--experiment=e", "--device=cpu"]) == 1
    assert "--env is 'CartPole-v1', allowed: procgen" in capsys.readouterr().err


def test_an_unreachable_cluster_is_a_one_line_error(small_flags, tmp_path, capsys) -> None:
    flags = [*small_flags, f"--train_dir={tmp_path}", "--experiment=e", "--ray_address=127.0.0.1:1"]
    assert main(["train", *flags]) == 1
    assert "no Ray cluster answers at '127.0.0.1:1'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_architecture_does_not_resume(make_distributed_learner, small_flags, tmp_path, capsys) -> None:
    make_distributed_learner().save()
    assert main(["train", *small_flags, f"--train_dir={tmp_path}", "--experiment=e", "--core=lstm"]) == 1
    assert "--core is 'lstm', but experiment 'e' was begun with 'srwm'" in capsys.readouterr().err


def test_learner_processes_check_their_settings(small_flags, tmp_path) -> None:
    def cfg(*flags: str):
        return parse_distributed_args([*small_flags, f"--train_dir={tmp_path}", "--experiment=e", *flags])

    check_processes(cfg(), 1)
    with pytest.raises(ConfigError, match="need a running cluster"):
        check_processes(cfg(), 2)
    small_flags = [*small_flags, "--ray_address=10.0.0.1:6379"]
    check_processes(cfg(), 2)
    with pytest.raises(ConfigError, match="--batch_size / --rollout is 8, expected a multiple of 3"):
        check_processes(cfg(), 3)
    with pytest.raises(ConfigError, match="--num_workers is 2, expected at least one for each of 4"):
        check_processes(cfg(), 4)
    with pytest.raises(ConfigError, match="--normalize_input is True"):
        check_processes(cfg("--normalize_input=True"), 2)


def test_unknown_commands_and_missing_packages(capsys) -> None:
    assert main(["trian"]) == 1
    assert "unknown command 'trian', allowed: train" in capsys.readouterr().err
    code = (
        "import sys; sys.modules['ray'] = None; import srwm_agents.extras as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'ray' else find(name, *a)\n"
        "from srwm_agents.__main__ import main; sys.exit(main(['distributed', 'train']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "distributed: error: ray is not installed; install with: pip install 'srwm-agents[distributed]'" in (
        result.stderr
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--popart=True", "--reward_treatment=return_norm")])
def test_two_processes_equal_one(make_distributed_learner, tmp_path, options) -> None:
    learner = make_distributed_learner(*options)
    rollout = play(collector_settings(learner), learner.weights(), 1)[0]
    torch.save(as_tensors(concatenate([rollout.arrays])), tmp_path / "batch.pt")
    learner.train(trajectories(as_tensors(concatenate([rollout.arrays])), learner.device))
    expected = learner.weights()

    script = str(Path(__file__).parent / "learn_in_process.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    subprocess.run([*torchrun, script, str(tmp_path), *options], env=environment, cwd=ROOT, check=True, timeout=240)
    results = [torch.load(tmp_path / f"weights_{rank}.pt", weights_only=True) for rank in "01"]
    for name, weight in expected.items():
        assert torch.equal(results[0]["weights"][name], results[1]["weights"][name])
        # Adam's first step is the sign of the gradient times the learning rate of 1e-4: a gradient near 0, summed in
        # another order, may take the other sign.
        torch.testing.assert_close(results[0]["weights"][name], torch.from_numpy(weight), rtol=0, atol=2.1e-4)
    moved = torch.cat([(results[0]["weights"][n] - torch.from_numpy(w)).abs().flatten() for n, w in expected.items()])
    assert (moved > 1e-6).float().mean() < 0.01
    assert [result["frames"] for result in results] == [64, 64]


def test_learners_that_share_a_batch_take_steps_of_one_size(make_distributed_learner) -> None:
    """Sample Factory scales the step size by the share of valid steps, here that of all learners together."""

    class OtherHasNone:
        world_size = 2

        def mean(self, values: torch.Tensor) -> torch.Tensor:
            return values / 2

    learner = make_distributed_learner()
    arrays = play(collector_settings(learner), learner.weights(), 1)[0].arrays
    learner.pool = OtherHasNone()
    _, size, invalid = learner._prepare_batch(trajectories(as_tensors(concatenate([arrays])), learner.device))
    assert (size, invalid) == (64, 32)
