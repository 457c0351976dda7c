"""Return normalisation and PopArt in Sample Factory's learner: updates and resumes."""

from __future__ import annotations

import copy

import pytest
import torch

from srwm_agents.agent import load_agent
from srwm_agents.learning import actor_critic_losses

RETURN_NORM = "--reward_treatment=return_norm"


def minibatch_of(learner, batch):
    return next(learner.minibatches(learner._prepare_batch(batch)[0]))


def test_rewards_in_units_of_returns_reach_the_losses_and_survive_a_resume(make_learner, make_batch) -> None:
    learner = make_learner(RETURN_NORM)
    assert learner.cfg.reward_clip == 1000

    def learn(seed: int):
        batch = make_batch(learner, seed)
        batch["rewards"][::2] *= 1000
        seen = batch["obs"]["last_reward"].clone()
        prepared = minibatch_of(learner, copy.deepcopy(batch))
        torch.testing.assert_close(prepared.observations["last_reward"], seen)
        learner.train(batch)
        return prepared

    prepared = [learn(seed) for seed in range(3)][-1]
    large, small = prepared.rewards[::2].std(), prepared.rewards[1::2].std()
    assert 0.5 < large / small < 2
    learner.save()
    resumed = make_learner(RETURN_NORM)
    torch.testing.assert_close(resumed.return_scales.moments, learner.return_scales.moments, rtol=0, atol=0)
    torch.testing.assert_close(resumed.return_scales.count, learner.return_scales.count, rtol=0, atol=0)
    batch = make_batch(learner, 9)
    one, other = (minibatch_of(each, copy.deepcopy(batch)).rewards for each in (learner, resumed))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_popart_learns_in_units_of_each_game(make_learner, make_batch) -> None:
    """A game with rewards 100 times larger gets advantages and a value gradient of the same size."""
    flags = ("--popart=True", "--reward_treatment=none", "--popart_step_size=0.1")
    learner = make_learner(*flags, "--learning_rate=0.001")

    def learn(seed: int):
        batch = make_batch(learner, seed)
        batch["rewards"][::2] *= 100
        learner.train(batch)
        return batch

    minibatch = minibatch_of(learner, [learn(seed) for seed in range(8)][-1])
    losses = learner.update.losses(minibatch)
    large, small = losses.advantages[::2].std(), losses.advantages[1::2].std()
    assert 0.5 < large / small < 2
    assert losses.targets[::2].std() > 30 * losses.targets[1::2].std()
    losses.total.backward()
    grad = learner.actor_critic.critic_linear.linear.weight.grad.norm(dim=1)
    assert 0.1 < grad[0] / grad[1] < 10


@pytest.mark.parametrize("flags", [(), ("--policy_loss=ppo", "--num_epochs=2"), ("--decoder_mlp_layers", "8")])
def test_moving_popart_changes_units_and_nothing_else(make_learner, make_batch, flags) -> None:
    """The loss is that of the values before the step, with errors in units of the new deviation."""
    learner = make_learner("--popart=True", *flags)
    learner.train(make_batch(learner, 1))
    minibatch = minibatch_of(learner, make_batch(learner, 2))
    popart = learner.actor_critic.popart
    still = copy.deepcopy(learner.actor_critic)
    still.popart.step_size = 0.0
    before = actor_critic_losses(still, minibatch, learner.update.settings.loss)
    after = learner.update.losses(minibatch)
    assert (still.popart.mean != popart.mean).all()
    torch.testing.assert_close(after.values, before.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.targets, before.targets, rtol=1e-5, atol=1e-5)
    deviation = popart.deviation[minibatch.games][:, None]
    expected = learner.cfg.value_loss_coeff * (((after.targets - before.values) / deviation) ** 2).mean()
    torch.testing.assert_close(after.value, expected, rtol=1e-4, atol=1e-6)
    old = still.popart.deviation[minibatch.games][:, None]
    torch.testing.assert_close(after.advantages * deviation, before.advantages * old, rtol=1e-4, atol=1e-5)


def test_acting_returns_the_learners_values(make_learner, make_batch) -> None:
    learner = make_learner("--popart=True", "--popart_step_size=0.5")
    batch = make_batch(learner)
    batch["rewards"] *= 10
    learner.train(batch)
    batch = make_batch(learner, 1)
    losses = learner.update.losses(minibatch_of(learner, copy.deepcopy(batch)))
    torch.testing.assert_close(losses.values, batch["values"][:, :-1], rtol=1e-4, atol=1e-4)


def test_popart_survives_a_resume(make_learner, make_batch) -> None:
    learner = make_learner("--popart=True", "--optimizer=rmsprop")
    learner.train(make_batch(learner))
    learner.save()
    resumed = make_learner("--popart=True", "--optimizer=rmsprop")
    batch = make_batch(learner, 9)
    for each in (learner, resumed):
        each.train(copy.deepcopy(batch))
    state = learner.actor_critic.state_dict()
    assert {"critic_linear.mean", "critic_linear.square", "critic_linear.seen"} <= set(state)
    for name, tensor in resumed.actor_critic.state_dict().items():
        torch.testing.assert_close(tensor, state[name], msg=name)


@pytest.mark.parametrize("games", ["starpilot", "starpilot,leaper"])
def test_the_exported_agent_plays_and_gives_the_mean_of_all_games_values(make_learner, make_batch, games: str) -> None:
    learner = make_learner("--popart=True", f"--games={games}", "--popart_step_size=0.5")
    batch = make_batch(learner)
    batch["rewards"] = batch["rewards"] * 20 + 5
    learner.train(batch)
    learner.save()
    agent = load_agent(learner.checkpoint_dir(learner.cfg, 0).replace("checkpoint_p0", "agent"))
    observation = {name: entry[:, 0] for name, entry in batch["obs"].items()}
    actions, state = agent.act({name: observation[name] for name in ("obs", "last_reward")})
    assert actions.shape == (len(observation["obs"]),)
    assert state.shape[1] == learner.cfg.rnn_size
    model = learner.actor_critic.eval()
    outputs = []
    with torch.no_grad():
        for game in range(len(games.split(","))):
            observation["game_index"] = torch.full_like(observation["game_index"], game)
            outputs.append(model(observation, torch.zeros(len(actions), learner.cfg.rnn_size)))
        logits, value, _ = agent(
            {name: e[:, None] for name, e in observation.items()}, agent.initial_state(len(actions))
        )
    for out in outputs:
        torch.testing.assert_close(logits[:, 0], out["action_logits"], rtol=1e-4, atol=1e-5)
    values = torch.stack([out["values"] for out in outputs])
    torch.testing.assert_close(value[:, 0], values.mean(0), rtol=1e-4, atol=1e-4)
