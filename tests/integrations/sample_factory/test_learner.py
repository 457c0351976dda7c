"""Sample Factory's learner with our updates: targets, gradients, invalid steps, averages, resumes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from srwm_agents.agent import load_agent
from srwm_agents.averaging import MEAN_AGE
from srwm_agents.integrations.sample_factory.config import experiment_folder
from srwm_agents.integrations.sample_factory.model import portable_weights
from srwm_agents.learning import actor_critic_losses, vtrace


def minibatch_of(learner, batch):
    trajectories, _, _ = learner._prepare_batch(batch)
    return next(learner.minibatches(trajectories))


def gradients(learner, batch) -> dict[str, torch.Tensor]:
    learner.actor_critic.zero_grad()
    learner.update.losses(minibatch_of(learner, batch)).total.backward()
    return {name: p.grad for name, p in learner.actor_critic.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("policy_loss", ["vtrace", "ppo"])
def test_self_modification_gets_gradient_through_a_learner_step(make_learner, make_batch, policy_loss: str) -> None:
    """In the published agents the gradient of W_q, W_k and W_beta is exactly zero."""
    learner = make_learner(f"--policy_loss={policy_loss}")
    before = {name: p.clone() for name, p in learner.actor_critic.named_parameters()}
    learner.train(make_batch(learner))
    grads = gradients(learner, make_batch(learner))
    for block in ("w_y", "w_q", "w_k", "w_beta"):
        name = f"core.core.layers.0.{block}"
        assert grads[name].abs().max() > 0, block
        assert (dict(learner.actor_critic.named_parameters())[name] != before[name]).any(), block


def test_detaching_the_state_takes_that_gradient_away(make_learner, make_batch) -> None:
    learner = make_learner("--detach_state_every_step=True")
    grads = gradients(learner, make_batch(learner))
    for block in ("w_q", "w_k", "w_beta"):
        grad = grads.get(f"core.core.layers.0.{block}")
        assert grad is None or not grad.any()


def test_learner_and_actors_compute_the_same_policy(make_learner, make_batch) -> None:
    """Before any update learner and behaviour policy are equal: all ratios are 1, all KL divergences 0."""
    learner = make_learner()
    losses = learner.update.losses(minibatch_of(learner, make_batch(learner)))
    torch.testing.assert_close(losses.ratios, torch.ones_like(losses.ratios), rtol=1e-4, atol=1e-4)
    assert losses.kl.abs() < 1e-6


@pytest.mark.parametrize("flags", [[], ["--game_gammas=leaper=.5"]])
def test_targets_come_from_the_true_bootstrap_value(make_learner, make_batch, flags: list[str]) -> None:
    learner = make_learner(*flags)
    batch = make_batch(learner)
    batch["dones"][:, -1] = False
    cfg, model = learner.cfg, learner.actor_critic
    losses = learner.update.losses(minibatch_of(learner, batch))
    with torch.no_grad():
        values, state = [], batch["rnn_states"][:, 0]
        for t in range(cfg.rollout + 1):
            out = model({name: entry[:, t] for name, entry in batch["obs"].items()}, state)
            values.append(out["values"])
            if t < cfg.rollout:
                state = out["new_rnn_states"] * (~batch["dones"][:, t, None])
    values = torch.stack(values, 1)
    gammas = torch.tensor([cfg.gamma, 0.5 if flags else cfg.gamma])[batch["obs"]["game_index"][:, 0, 0].long()]
    assert len(gammas.unique()) == (2 if flags else 1)
    expected = vtrace(
        torch.zeros_like(batch["rewards"]),
        batch["rewards"],
        gammas[:, None] * (~batch["dones"]).float(),
        values[:, :-1],
        values[:, -1],
    )
    torch.testing.assert_close(losses.values, values[:, :-1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(losses.targets, expected.targets, rtol=1e-4, atol=1e-4)
    # Sample Factory's own V-trace makes each rollout's last advantage zero.
    assert losses.advantages[:, -1].abs().max() > 1e-3


def test_random_steps_have_no_weight(make_learner, make_batch) -> None:
    """Policy, values and step size are as if the rollout began after them."""
    learner = make_learner("--random_starts=leaper=5")
    batch = make_batch(learner)
    batch["dones"][:] = False
    exploring = batch["obs"]["exploring"] = torch.zeros(*batch["obs"]["last_reward"].shape)
    exploring[1, :3] = 1
    trajectories, size, invalid = learner._prepare_batch(batch)
    assert (size, invalid) == (batch["rewards"].numel(), 0)
    assert (~trajectories.valids).nonzero().tolist() == [[1, 0], [1, 1], [1, 2]]
    expected = gradients(learner, batch)
    batch["rewards"][1, :2] += 10
    batch["actions"][1, :3] = (batch["actions"][1, :3] + 1) % 15
    batch["log_prob_actions"][1, :3] = -50
    found = gradients(learner, batch)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, msg=name)
    batch["rewards"][1, 3] += 10
    assert any(not torch.equal(grad, expected[name]) for name, grad in gradients(learner, batch).items())


def test_a_minibatch_of_random_steps_alone_has_summaries_too(make_learner, make_batch) -> None:
    learner = make_learner("--random_starts=leaper=100")
    learner._should_save_summaries = lambda: True
    batch = make_batch(learner)
    batch["obs"]["exploring"] = torch.ones(*batch["obs"]["last_reward"].shape)
    stats = learner.train(batch)["train"]
    assert stats["valids_fraction"] == 0
    assert "ratio_min" not in stats


@pytest.mark.parametrize("critic", ["detached", "separate"])
def test_a_separate_critic_has_no_gradient_into_the_policy(make_learner, make_batch, critic: str) -> None:
    """Targets come from the critic; no value error has a gradient into the policy's features, the advantages' has."""
    found = []
    for weights in (("1", "0"), ("10", "0"), ("1", "1")):
        flags = (f"--value_loss_coeff={weights[0]}", f"--advantage_loss_coeff={weights[1]}")
        learner = make_learner(f"--critic={critic}", *flags)
        found.append(gradients(learner, make_batch(learner)))
    once, tenfold, both = found
    assert {name.split(".")[0] for name in once} > {"critic", "encoder", "core"}
    for name, grad in once.items():
        of_values = name.startswith(("critic.", "critic_linear."))
        assert not of_values or grad.any(), name
        torch.testing.assert_close(tenfold[name], 10 * grad if of_values else grad, rtol=1e-3, atol=1e-6)
        if of_values:
            torch.testing.assert_close(both[name], grad)
    assert not once["advantage_head.weight"].any()
    assert both["advantage_head.weight"].any()
    assert (both["encoder.observation.image.mlp.0.weight"] != once["encoder.observation.image.mlp.0.weight"]).any()

    policy, values = learner.actor_critic.networks()
    assert len(policy) + len(values) == len(list(learner.actor_critic.parameters()))
    batch = make_batch(learner)
    losses = learner.update.losses(minibatch_of(learner, batch))
    assert not torch.allclose(losses.values, batch["values"][:, :-1], atol=1e-2)  # those of the policy's own head
    before = {name: p.clone() for name, p in learner.actor_critic.named_parameters()}
    learner.train(batch)
    assert all((p != before[name]).any() for name, p in learner.actor_critic.named_parameters() if name in both)


def test_a_critic_learns_in_some_iterations_alone(make_learner, make_batch) -> None:
    """With --critic_every=2 the first iteration is the plain one; in the second only the policy's network changes."""
    plain, every = make_learner("--critic=separate"), make_learner("--critic=separate", "--critic_every=2")
    for learner in (plain, every):
        learner.train(make_batch(learner))
    for name, parameter in every.actor_critic.named_parameters():
        torch.testing.assert_close(parameter, dict(plain.actor_critic.named_parameters())[name], rtol=0, atol=0)
    model = every.actor_critic
    policy, critic = ([p.clone() for p in network.parameters()] for network in (model.encoder, model.critic))
    every.train(make_batch(every))
    assert any((p != before).any() for p, before in zip(model.encoder.parameters(), policy, strict=True))
    assert all((p == before).all() for p, before in zip(model.critic.parameters(), critic, strict=True))
    every.train(make_batch(every))
    assert any((p != before).any() for p, before in zip(model.critic.parameters(), critic, strict=True))


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_games_value_error_has_its_own_weight(make_learner, make_batch, critic: str) -> None:
    learner, weighted = (
        make_learner(f"--critic={critic}", *more) for more in ([], ["--game_value_coeffs=leaper=0.25,starpilot=2"])
    )
    minibatch = minibatch_of(learner, make_batch(learner))
    plain, found = learner.update.losses(minibatch), weighted.update.losses(minibatch)
    weights = torch.tensor([2.0, 0.25])[minibatch.games][:, None].expand_as(plain.values)
    assert learner.cfg.tasks == ["starpilot", "leaper"]
    assert len(minibatch.games.unique()) == 2
    valids = minibatch.valids
    if critic == "shared":
        errors = learner.cfg.value_loss_coeff * (plain.targets - plain.values).square()
        torch.testing.assert_close(found.value, (weights * errors)[valids].mean())
    torch.testing.assert_close(found.policy, plain.policy)
    assert not torch.allclose(found.value, plain.value)


def test_a_critics_learning_rate_changes_nothing_else(make_learner, make_batch) -> None:
    plain, slow = make_learner("--critic=separate"), make_learner("--critic=separate", "--critic_lr_scale=0")
    critic = [p.clone() for p in slow.actor_critic.critic.parameters()]
    for learner in (plain, slow):
        learner.train(make_batch(learner))
    assert all((p == before).all() for p, before in zip(slow.actor_critic.critic.parameters(), critic, strict=True))
    assert any((p != before).any() for p, before in zip(plain.actor_critic.critic.parameters(), critic, strict=True))
    for one, other in zip(plain.actor_critic.networks()[0], slow.actor_critic.networks()[0], strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_the_value_heads_gradient_into_the_features_is_scaled(make_learner, make_batch) -> None:
    """What --value_gradient_scale adds to the features' gradient is proportional to it, and nothing else changes."""
    gradients, of_others = [], []
    for scale in (0, 0.25, 1):
        learner = make_learner("--critic=separate", f"--value_gradient_scale={scale}")
        model = learner.actor_critic
        learner.update.losses(minibatch_of(learner, make_batch(learner))).total.backward()
        gradients.append([p.grad.clone() for p in model.encoder.parameters()])
        others = [*model.critic.parameters(), *model.critic_linear.parameters(), *model.advantage_head.parameters()]
        of_others.append([p.grad.clone() for p in others])
        torch.testing.assert_close(of_others[-1], of_others[0])
    assert any((quarter != none).any() for none, quarter, _ in zip(*gradients, strict=True))
    for none, quarter, full in zip(*gradients, strict=True):
        torch.testing.assert_close(quarter, none + (full - none) / 4, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy_loss", ["vtrace", "ppo"])
def test_what_the_head_predicts_for_the_state_is_a_baseline(make_learner, make_batch, policy_loss: str) -> None:
    plain, corrected = (
        make_learner("--critic=detached", f"--policy_loss={policy_loss}", *more)
        for more in ([], ["--advantage_baseline=True"])
    )
    for learner in (plain, corrected):
        head = learner.actor_critic.advantage_head
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.arange(len(head.bias)) / 4)
    minibatch = minibatch_of(plain, make_batch(plain))
    without, found = plain.update.losses(minibatch), corrected.update.losses(minibatch)
    model, steps = corrected.actor_critic, minibatch.valids
    evaluation = model.evaluate(minibatch.observations, minibatch.state, minibatch.resets)
    weights = found.advantages - evaluation.logits.softmax(-1) @ model.advantage_head.bias
    if policy_loss == "ppo":
        clip = corrected.cfg.ppo_clip_ratio
        ratios = found.ratios
        expected = -torch.minimum(ratios * weights, ratios.clamp(1 / (1 + clip), 1 + clip) * weights)
    else:
        log_probs = model.distribution(evaluation.logits.flatten(0, 1)).log_prob(minibatch.actions.flatten(0, 1))
        expected = -weights * log_probs.view_as(weights)
    torch.testing.assert_close(found.policy, expected[steps].mean())
    assert not torch.allclose(found.policy, without.policy)
    torch.testing.assert_close(found.advantage, without.advantage)
    torch.testing.assert_close(found.advantages, without.advantages)


def test_the_advantage_head_regresses_the_policy_gradients_weights(make_learner, make_batch) -> None:
    learner = make_learner("--critic=detached", "--advantage_loss_coeff=1", "--normalize_advantages=True")
    model, minibatch = learner.actor_critic, minibatch_of(learner, make_batch(learner))
    with torch.no_grad():
        model.advantage_head.weight.zero_()
        model.advantage_head.bias.copy_(torch.arange(len(model.advantage_head.bias)) / 4)
    losses = learner.update.losses(minibatch)
    predicted = minibatch.actions[..., 0] / 4
    expected = (losses.advantages - predicted).square()[minibatch.valids].mean()
    torch.testing.assert_close(losses.advantage, expected)


def test_invalid_steps_have_no_weight(make_learner, make_batch) -> None:
    learner = make_learner()
    batch = make_batch(learner)
    batch["policy_id"][:, 3:5] = 1
    clean = gradients(learner, batch)
    for name in ("actions", "log_prob_actions"):
        batch[name][:, 3:5] = float("nan")
    dirty = gradients(learner, batch)
    for name, grad in clean.items():
        torch.testing.assert_close(dirty[name], grad)


def test_summing_losses_scales_the_papers_way(make_learner, make_batch) -> None:
    """The sum over N steps is N times the mean, except for the value loss's factor of one half."""
    results = []
    for reduction in ("mean", "sum"):
        learner = make_learner(f"--loss_reduction={reduction}", "--value_loss_coeff=0")
        results.append(gradients(learner, make_batch(learner)))
    steps = learner.cfg.batch_size
    for name, grad in results[0].items():
        torch.testing.assert_close(results[1][name], steps * grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "lamb", "rmsprop"])
@pytest.mark.parametrize("vtrace_on", [True, False])
def test_updates_with_every_optimiser_report_summaries(make_learner, make_batch, optimizer: str, vtrace_on) -> None:
    """Sample Factory's V-trace raises at its first summary."""
    flags = [f"--optimizer={optimizer}", f"--with_vtrace={vtrace_on}", "--num_epochs=2", "--num_batches_per_epoch=2"]
    learner = make_learner(*flags)
    stats = learner.train(make_batch(learner))
    assert learner.train_step == 4
    assert type(learner.optimizer).__name__.lower() == optimizer
    train_stats = stats["train"] if "train" in stats else next(v for k, v in stats.items() if "train" in k)
    assert np.isfinite([train_stats[key] for key in ("loss", "grad_norm", "entropy", "value_loss")]).all()


def test_rmsprop_has_the_papers_constants(make_learner) -> None:
    group = make_learner("--optimizer=rmsprop").optimizer.param_groups[0]
    assert (group["alpha"], group["eps"], group["momentum"]) == (0.99, 0.01, 0.0)


def test_shuffled_minibatches_hold_every_trajectory_once(make_learner, make_batch) -> None:
    learner = make_learner("--num_batches_per_epoch=4", "--shuffle_minibatches=True")
    batch = make_batch(learner)
    trajectories, size, _ = learner._prepare_batch(batch)
    seen = torch.cat([mb.rewards for mb in learner.minibatches(trajectories)])
    assert seen.numel() == size
    key = lambda rows: sorted(rows[:, 0].tolist())  # noqa: E731
    assert key(seen) == key(batch["rewards"])


def test_learning_rate_decays_with_frames_and_survives_a_resume(make_learner, make_batch) -> None:
    flags = ["--lr_schedule=linear_decay", "--train_for_env_steps=320", "--learning_rate=0.01"]
    learner = make_learner(*flags)
    rates = []
    for _ in range(4):
        learner.train(make_batch(learner))
        rates.append(learner.curr_lr)
    # An update's rate is a function of the frames before it: 0, 32, 64, 96 of 320.
    np.testing.assert_allclose(rates, [0.01, 0.009, 0.008, 0.007])
    learner.save()
    resumed = make_learner(*flags)
    assert (resumed.env_steps, resumed.train_step) == (128, 4)
    assert resumed.curr_lr == pytest.approx(0.006)


@pytest.mark.parametrize(
    "flags", [[], ["--decoder_mlp_layers", "8"]]
)  # Sample Factory compiles decoders to TorchScript
def test_the_average_is_of_all_iterations(make_learner, make_batch, flags: list[str]) -> None:
    """Also where few of them are saved, and it goes on after a resume."""
    learner = make_learner(*flags)
    folder, weights = experiment_folder(learner.cfg) / "agent_average", []
    for _ in range(3):
        learner.train(make_batch(learner))
        weights.append({name: tensor.clone() for name, tensor in portable_weights(learner.actor_critic).items()})
    learner.save()
    average = load_agent(folder)
    for name, tensor in average.state_dict().items():
        mean = torch.stack([each[name] for each in weights]).mean(0)
        torch.testing.assert_close(tensor, mean, rtol=1e-5, atol=1e-7, msg=name)
    assert average.config.training["frames"] == learner.env_steps
    resumed = make_learner(*flags)
    before = {name: tensor.clone() for name, tensor in load_agent(folder).state_dict().items()}
    for name, tensor in average.state_dict().items():
        assert torch.equal(before[name], tensor), name
    resumed.train(make_batch(resumed))
    resumed.save()
    latest, share = portable_weights(resumed.actor_critic), (1 / MEAN_AGE - 1) / 4
    for name, tensor in load_agent(folder).state_dict().items():
        expected = torch.lerp(before[name], latest[name], min(1.0, share))
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-7, msg=name)


def test_a_resume_continues_exactly(make_learner, make_batch) -> None:
    """Frames, updates, weights, optimiser and normalisers are restored: the next update equals the original's."""
    flags = ["--normalize_input=True", "--optimizer=rmsprop"]
    learner = make_learner(*flags)
    for seed in range(2):
        learner.train(make_batch(learner, seed))
    learner.save()
    resumed = make_learner(*flags)
    batch = make_batch(learner, 9)
    for each in (learner, resumed):
        each.train(copy.deepcopy(batch))
    assert resumed.env_steps == learner.env_steps == 96
    for (name, a), b in zip(
        learner.actor_critic.state_dict().items(), resumed.actor_critic.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(b, a, msg=name)


# Checkpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ["--policy_loss=vtrace"],
        pytest.param(["--policy_loss=ppo", "--normalize_advantages=True", "--critic=separate"], marks=pytest.mark.slow),
    ],
)
def test_the_policy_learns_what_is_rewarded(make_learner, make_batch, flags: list[str]) -> None:
    """Action 3 is rewarded where the last reward was positive, action 5 elsewhere; chance is 1/15."""
    learner = make_learner(*flags, "--learning_rate=0.003", "--batch_size=128", "--gamma=0.9")
    rewarded = []
    for update in range(150):
        batch = make_batch(learner, update, images=1)
        good = torch.where(batch["obs"]["last_reward"][:, :-1, 0] > 0, 3, 5)
        batch["rewards"][:] = (batch["actions"].view(good.shape) == good).float()
        batch["dones"][:] = False
        learner.train(batch)
        rewarded.append(batch["rewards"].mean().item())
        if np.mean(rewarded[-10:]) > 0.9:
            break
    assert np.mean(rewarded[-10:]) > 0.9


def test_nonfinite_values_do_not_reach_weights_or_statistics(make_learner, make_batch) -> None:
    """One trajectory with NaN invalidates its minibatch, not weights, optimiser or a game's scale."""
    learner = make_learner("--balance_games=True", "--optimizer=adam")
    learner.train(make_batch(learner))
    before = copy.deepcopy(learner.actor_critic.state_dict())
    broken = make_batch(learner, 1)
    broken["rewards"][0, 3] = torch.inf
    learner.train(broken)
    assert learner.update.gradients_left_out > 0
    learner.train(make_batch(learner, 2))
    tensors = [*learner.actor_critic.state_dict().values(), learner.game_scales.mean_square]
    tensors += [entry for state in learner.optimizer.state.values() for entry in state.values()]
    assert all(tensor.isfinite().all() for tensor in tensors)
    assert any((before[name] != entry).any() for name, entry in learner.actor_critic.state_dict().items())


def test_balanced_games_have_advantages_of_equal_size(make_learner, make_batch) -> None:
    """A game whose rewards are 100 times smaller gets advantages of the same size, and keeps its scale on resume."""
    learner = make_learner("--balance_games=True")

    def learn(seed: int):
        batch = make_batch(learner, seed)
        batch["rewards"][1::2] /= 100
        learner.train(batch)
        return batch

    batch = [learn(seed) for seed in range(5)][-1]
    losses = learner.update.losses(minibatch_of(learner, batch))
    raw = actor_critic_losses(learner.actor_critic, minibatch_of(learner, batch), learner.update.settings.loss)
    ratio, raw_ratio = (each.advantages[1::2].std() / each.advantages[::2].std() for each in (losses, raw))
    assert raw_ratio < 0.5
    assert 0.5 < ratio < 2
    learner.save()
    resumed = make_learner("--balance_games=True")
    torch.testing.assert_close(resumed.game_scales.mean_square, learner.game_scales.mean_square, rtol=0.1, atol=0)
