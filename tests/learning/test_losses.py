"""Losses and updates of a small model, without any framework: shared batches, lambda, non-finite values."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from srwm_agents.learning import (
    Evaluation,
    GameScales,
    LossSettings,
    PopArtCritic,
    Rollout,
    Update,
    UpdateSettings,
    actor_critic_losses,
    vtrace,
)
from srwm_agents.learning.optimizers import OptimizerSettings, RatedParameters, make_optimizer
from srwm_agents.processes import Processes

ACTIONS, GAMES, FEATURES = 5, 2, 6


class Policy:
    """N categorical distributions."""

    def __init__(self, logits: Tensor) -> None:
        self.categorical = Categorical(logits=logits)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.categorical.log_prob(actions.squeeze(-1))

    def entropy(self) -> Tensor:
        return self.categorical.entropy()

    def kl_divergence(self, other: Any) -> Tensor:
        return kl_divergence(self.categorical, other.categorical)

    def symmetric_kl_with_uniform_prior(self) -> Tensor:
        uniform = Categorical(logits=torch.zeros_like(self.categorical.logits))
        return (kl_divergence(self.categorical, uniform) + kl_divergence(uniform, self.categorical)) / 2


class Model(nn.Module):
    """Linear policy and values over vectors "x"; with ``own_critic`` the values are another network's."""

    def __init__(self, *, popart: bool = False, own_critic: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(3, FEATURES)
        self.policy, self.value = nn.Linear(FEATURES, ACTIONS), nn.Linear(FEATURES, 1)
        self.popart = PopArtCritic(FEATURES, GAMES, 0.1) if popart else None
        self.critic = nn.Linear(3, 1) if own_critic else None
        self.advantage = nn.Linear(FEATURES, ACTIONS)

    def evaluate(self, observations: dict[str, Tensor], state: Tensor, resets: Tensor) -> Evaluation:
        features = self.body(observations["x"]).tanh()
        acted_on = features[:, :-1]
        if self.critic is not None:
            values, own = self.critic(observations["x"]).squeeze(-1), self.value(acted_on.detach()).squeeze(-1)
            return Evaluation(acted_on, self.policy(acted_on), values, own, self.advantage(acted_on))
        values = self.value(features).squeeze(-1) if self.popart is None else self.popart(features)
        return Evaluation(acted_on, self.policy(acted_on), values)

    def distribution(self, logits: Tensor) -> Policy:
        return Policy(logits)

    def networks(self) -> list[list[nn.Parameter]]:
        return [list(self.parameters())]


def make_rollout(batch: int = 8, steps: int = 6, seed: int = 0) -> Rollout:
    """Trajectories whose halves differ in number of valid steps, games and size of rewards."""
    g = torch.Generator().manual_seed(seed)
    rewards = torch.randn(batch, steps, generator=g)
    rewards[: batch // 2] *= 10
    dones = torch.rand(batch, steps, generator=g) < 0.2
    logits = torch.randn(batch, steps, ACTIONS, generator=g)
    actions = torch.randint(ACTIONS, (batch, steps, 1), generator=g)
    valids = torch.rand(batch, steps, generator=g) < 0.9
    valids[0], valids[1, :3] = False, False
    return Rollout(
        observations={"x": torch.randn(batch, steps + 1, 3, generator=g)},
        state=torch.zeros(batch, 1),
        rewards=rewards,
        dones=dones,
        discounts=0.9 * (~dones),
        actions=actions,
        log_probs=logits.log_softmax(-1).gather(-1, actions).squeeze(-1),
        logits=logits,
        games=torch.tensor([0, 0, 1, 0, 1, 1, 1, 0])[:batch],
        valids=valids,
        versions=torch.zeros(batch, steps),
    )


def make_update(model: Model, settings: LossSettings, scales: GameScales | None = None, **more: Any) -> Update:
    # An epsilon of the gradients' order: Adam makes steps of equal size of gradients that are nothing but rounding.
    adam = OptimizerSettings(learning_rate=0.01, adam_eps=1e-3)
    optimizer = make_optimizer([RatedParameters(list(model.parameters()))], adam, captured=False)
    return Update(model, optimizer, UpdateSettings(settings, max_grad_norm=1.0), scales=scales, **more)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("policy_loss", ["vtrace", "ppo"])
@pytest.mark.parametrize("kind", ["plain", "scales", "popart", "critic"])
def test_two_learners_with_half_a_batch_each_equal_one(as_two_learners, kind, policy_loss, reduction) -> None:
    """The weights after three updates are equal, with different numbers of valid steps and games in the halves."""
    torch.manual_seed(0)
    model = Model(popart=kind == "popart", own_critic=kind == "critic")
    settings = LossSettings(
        policy_loss=policy_loss, normalize_advantages=True, reduction=reduction, behaviour_kl_coeff=0.1, lambda_=0.9
    )
    scales = GameScales(GAMES, torch.device("cpu")) if kind == "scales" else None

    def train(whole: tuple[Model, GameScales | None], pool: Any = None, half: int | None = None) -> Model:
        mine, of_games = whole
        update = make_update(mine, settings, of_games, **({} if pool is None else {"pool": pool}))
        for seed in range(3):
            rollout = make_rollout(seed=seed)
            update(rollout if half is None else rollout.rows(slice(4 * half, 4 * half + 4)))
        return mine

    halves = as_two_learners(train, (model, scales))
    alone = train(copy.deepcopy((model, scales)))
    for name, expected in alone.state_dict().items():
        for mine in halves:
            torch.testing.assert_close(mine.state_dict()[name], expected, rtol=1e-4, atol=1e-5, msg=name)


GPUS = torch.cuda.device_count()
"""Counted before another test lets this process see one alone."""


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_processes_learn_what_one_does(tmp_path: Path, device: str) -> None:
    """Through torch.distributed, with sizes of games, normalised advantages and valid steps that differ."""
    if device == "cuda" and GPUS < 2:
        pytest.skip(f"two GPUs are needed, there are {GPUS}")
    root = Path(__file__).parents[2]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("CUDA_VISIBLE_DEVICES", None)  # which Sample Factory sets in the process of its tests
    subprocess.run([*torchrun, __file__, str(tmp_path), device], cwd=root, env=environment, check=True, timeout=120)
    model = Model()
    alone = make_update(model, HALVES, GameScales(GAMES, torch.device("cpu")))
    model.load_state_dict(torch.load(tmp_path / "before.pt", weights_only=True))
    for seed in range(3):
        alone(make_rollout(seed=seed))
    for rank in range(2):
        after = torch.load(tmp_path / f"after_{rank}.pt", weights_only=True)
        for name, expected in model.state_dict().items():
            torch.testing.assert_close(after[name], expected, rtol=1e-3, atol=1e-4, msg=name)  # TF32 on a GPU


HALVES = LossSettings(policy_loss="ppo", normalize_advantages=True, lambda_=0.9)


def learn_half(folder: Path, device: str) -> None:
    """One of two processes: three updates on its half of each batch."""
    torch.manual_seed(0)
    with Processes(device) as processes:
        model = Model().to(processes.device)
        processes.broadcast(model)
        if processes.rank == 0:
            torch.save({name: entry.cpu() for name, entry in model.state_dict().items()}, folder / "before.pt")
        update = make_update(model, HALVES, GameScales(GAMES, processes.device), pool=processes)
        for seed in range(3):
            half = make_rollout(seed=seed).rows(slice(4 * processes.rank, 4 * processes.rank + 4)).tree()
            observations = {name: entry.to(processes.device) for name, entry in half.pop("observations").items()}
            tensors = {name: tensor.to(processes.device) for name, tensor in half.items()}
            update(Rollout(observations, **tensors))
        after = {name: entry.cpu() for name, entry in model.state_dict().items()}
        torch.save(after, folder / f"after_{processes.rank}.pt")


def test_lambda_is_that_of_gae_for_ppo_too() -> None:
    """On-policy, PPO's advantages are GAE(lambda)'s, by the plain recursion."""
    torch.manual_seed(0)
    model, rollout = Model(), make_rollout()
    with torch.no_grad():
        evaluation = model.evaluate(rollout.observations, rollout.state, rollout.resets)
        log_probs = model.distribution(evaluation.logits.flatten(0, 1)).log_prob(rollout.actions.flatten(0, 1))
    rollout = replace(rollout, log_probs=log_probs.view_as(rollout.log_probs), logits=evaluation.logits)
    losses = actor_critic_losses(model, rollout, LossSettings(policy_loss="ppo", lambda_=0.8))
    values = evaluation.values
    expected, following = torch.zeros_like(rollout.rewards), torch.zeros(len(rollout))
    for t in reversed(range(rollout.rewards.shape[1])):
        delta = rollout.rewards[:, t] + rollout.discounts[:, t] * values[:, t + 1] - values[:, t]
        following = delta + rollout.discounts[:, t] * 0.8 * following
        expected[:, t] = following
    torch.testing.assert_close(losses.advantages, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses.targets, expected + values[:, :-1], rtol=1e-4, atol=1e-5)


def test_the_clip_of_the_trace_is_no_lambda() -> None:
    """``clip_c`` bounds the trace from above alone: where pi / mu is small it changes nothing, and lambda does."""
    g = torch.Generator().manual_seed(0)
    rewards, values, bootstrap = torch.randn(2, 5, generator=g), torch.randn(2, 5, generator=g), torch.ones(2)
    log_rhos, discounts = torch.full((2, 5), -1.0), torch.full((2, 5), 0.9)
    plain = vtrace(log_rhos, rewards, discounts, values, bootstrap)
    clipped = vtrace(log_rhos, rewards, discounts, values, bootstrap, clip_c=0.5)
    traced = vtrace(log_rhos, rewards, discounts, values, bootstrap, lambda_=0.5)
    torch.testing.assert_close(clipped.targets, plain.targets)
    assert (traced.targets - plain.targets).abs().max() > 0.1


def test_a_nonfinite_gradient_skips_one_update() -> None:
    torch.manual_seed(0)
    model = Model()
    scales = GameScales(GAMES, torch.device("cpu"))
    update = make_update(model, LossSettings(), scales)
    rollout = make_rollout()
    before = copy.deepcopy(model.state_dict())
    broken = rollout.rewards.clone()
    broken[4, 2] = torch.nan
    update(replace(rollout, rewards=broken))
    assert int(update.gradients_left_out) == 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    update(rollout)
    assert int(update.gradients_left_out) == 1
    assert all(tensor.isfinite().all() for tensor in (*model.state_dict().values(), scales.mean_square))


def test_minibatches_hold_every_trajectory_once() -> None:
    rollout = make_rollout()
    for shuffle in (False, True):
        parts = list(rollout.minibatches(3, shuffle=shuffle))
        assert [len(part) for part in parts] == [3, 3, 2]
        rows = torch.cat([part.rewards for part in parts])
        assert sorted(rows[:, 0].tolist()) == sorted(rollout.rewards[:, 0].tolist())
        assert torch.equal(rows, rollout.rewards) or shuffle
    assert next(rollout.minibatches(8, shuffle=True)) is rollout


if __name__ == "__main__":
    learn_half(Path(sys.argv[1]), sys.argv[2])
