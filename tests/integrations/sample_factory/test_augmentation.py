"""Random image shifts in the learner: one shift a trajectory, repeated edges, DrAC's consistency term."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from srwm_agents.learning import actor_critic_losses
from srwm_agents.learning import update as update_module
from srwm_agents.learning.augmentation import shift_images


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_trajectory_gets_one_shift(dtype) -> None:
    """Every result is one of the crops of the padded images, the same one for all steps and channels."""
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 3, 2, 8, 6), generator=g).to(dtype)
    torch.manual_seed(0)
    moved = shift_images(images, 2)
    assert moved.dtype == dtype
    assert moved.is_contiguous()
    padded = np.pad(images.numpy(), [(0, 0)] * 3 + [(2, 2)] * 2, mode="edge")
    found = []
    for b in range(20):
        at = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[b, ..., y : y + 8, x : x + 6] == moved[b].numpy()).all()
        ]
        assert len(at) == 1
        found += at
    assert len(set(found)) > 5
    assert {y for y, _ in found} == {x for _, x in found} == set(range(5))


def test_no_shift_is_the_identity() -> None:
    images = torch.randint(256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    assert torch.equal(shift_images(images, 0), images)


@pytest.mark.parametrize("flags", [(), ("--normalize_input=True",)])
def test_the_learner_shifts_images_without_changing_the_batch(make_learner, make_batch, monkeypatch, flags) -> None:
    learner = make_learner("--augment_shift=4", "--num_epochs=2", *flags)
    seen = []

    def watch(model, minibatch, *rest, **more):
        seen.append(minibatch.observations)
        return actor_critic_losses(model, minibatch, *rest, **more)

    monkeypatch.setattr(update_module, "actor_critic_losses", watch)
    batch = make_batch(learner)
    kept = copy.deepcopy(batch["obs"])
    learner.train(batch)
    assert torch.equal(batch["obs"]["obs"], kept["obs"])
    first, second = (observations["obs"] for observations in seen)
    assert (first != second).any(), "each epoch moves anew"
    assert first.shape == kept["obs"].shape
    assert torch.equal(seen[0]["last_reward"], seen[1]["last_reward"])


def test_consistency_equals_its_formula_and_keeps_ratios(make_learner, make_batch) -> None:
    """The additional term depends on the model's outputs on shifted images, with gradient through those only."""
    learner = make_learner("--augment_shift=4", "--augment_consistency=0.1", "--policy_head_scale=1")
    batch = make_batch(learner)
    minibatch = next(learner.minibatches(learner._prepare_batch(batch)[0]))
    settings = learner.update.settings.loss
    moved = {**minibatch.observations, "obs": shift_images(minibatch.observations["obs"], 4)}
    plain = actor_critic_losses(learner.actor_critic, minibatch, settings)
    with_moved = actor_critic_losses(learner.actor_critic, minibatch, settings, augmented=moved)
    torch.testing.assert_close(with_moved.ratios, torch.ones_like(plain.ratios), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(with_moved.targets, plain.targets)

    model = learner.actor_critic
    logits, values = {}, {}
    for name, observations in (("as_seen", batch["obs"]), ("moved", moved)):
        state, told = batch["rnn_states"][:, 0], []
        for t in range(learner.cfg.rollout):
            told.append(model({key: entry[:, t] for key, entry in observations.items()}, state))
            state = told[-1]["new_rnn_states"] * ~batch["dones"][:, t, None]
        logits[name] = torch.stack([out["action_logits"] for out in told]).log_softmax(-1)
        values[name] = torch.stack([out["values"] for out in told])
    apart = (logits["as_seen"].detach().exp() * (logits["as_seen"].detach() - logits["moved"])).sum(-1)
    expected = 0.1 * (apart + (values["as_seen"].detach() - values["moved"]) ** 2 / 2).mean()
    assert expected > 1e-4
    torch.testing.assert_close(with_moved.consistency, expected.detach(), rtol=1e-4, atol=1e-7)

    parameters = [p for name, p in model.named_parameters() if "encoder" in name or "critic" in name]
    expected_grads = torch.autograd.grad(plain.total + expected, parameters)
    for got, wanted in zip(torch.autograd.grad(with_moved.total, parameters), expected_grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_shifted_images_in_place_of_the_originals_change_the_ratios(make_learner, make_batch) -> None:
    learner = make_learner("--augment_shift=4", "--policy_head_scale=1")
    minibatch = next(learner.minibatches(learner._prepare_batch(make_batch(learner))[0]))
    losses = learner.update.losses(minibatch)
    assert (losses.ratios - 1).abs().max() > 1e-2
