"""Rewards and values in units of each game, against plain float64 references, and through real updates and resumes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from srwm_agents.agent import load_agent
from srwm_agents.integrations.sample_factory.losses import vtrace_losses
from srwm_agents.integrations.sample_factory.normalization import ReturnScales
from srwm_agents.integrations.sample_factory.popart import PopArtCritic

CPU = torch.device("cpu")
RETURN_NORM = "--reward_treatment=return_norm"


def minibatch_of(learner, batch):
    return next(learner._minibatches(learner._prepare_batch(batch)[0]))


# Returns -------------------------------------------------------------------------------------------------------------


def play(seed: int, environments: int, steps: int, chance: float, reward: float, end: float):
    """Rewards and ends of episodes, [environments, steps]; a tenth of the episodes ends with ten times the reward."""
    rng = np.random.default_rng(seed)
    rewards = reward * (rng.random((environments, steps)) < chance)
    dones = rng.random((environments, steps)) < end
    return rewards + 10 * reward * (dones & (rng.random(dones.shape) < 0.1)), dones


def vec_normalize_deviation(rewards, dones, gamma: float) -> float:
    """The deviation that baselines' VecNormalize knows at the end; its environments are never cut into pieces."""
    g, seen = np.zeros(len(rewards)), []
    for t in range(rewards.shape[1]):
        g = gamma * g + rewards[:, t]
        seen.append(g.copy())
        g[dones[:, t]] = 0
    return float(np.std(seen))


@pytest.mark.parametrize("gamma", [0.99, 0.999])
def test_return_deviations_are_those_of_uncut_environments(gamma: float) -> None:
    """Though no piece is longer than 32 steps: counting what comes before a piece as 0 would give a half or less."""
    scales = ReturnScales(torch.full((3,), gamma))
    games = [play(0, 64, 4096, 0.2, 1.0, 0.002), play(1, 64, 4096, 0.02, 0.1, 0.005), play(2, 64, 4096, 0.0, 1.0, 0.01)]
    index = torch.arange(3).repeat_interleave(64)
    for start in range(0, 4096, 32):
        pieces = [torch.from_numpy(np.concatenate([game[i][:, start : start + 32] for game in games])) for i in (0, 1)]
        scales.update(pieces[0].float(), pieces[1], index)
    expected = [vec_normalize_deviation(*game, gamma) for game in games]
    # Both are estimates from the same 8192 steps a game; the first pieces, which do begin at 0, count 1/128.
    np.testing.assert_allclose(scales.deviation.numpy(), expected, rtol=0.1 if gamma > 0.99 else 0.05)


def test_return_statistics_are_the_plain_ones() -> None:
    """Each mean, of all batches together, by loops in float64; a game that is not in a batch keeps its own."""
    scales = ReturnScales(torch.full((3,), 0.9, dtype=torch.float64))
    rng = np.random.default_rng(0)
    over_steps, last = {0: [], 2: []}, {0: [], 2: []}
    for number in (4, 1, 6):
        rewards, dones = rng.normal(size=(number, 7)).astype(np.float32), rng.random((number, 7)) < 0.3
        games = rng.choice([0, 2], number)
        scales.update(torch.from_numpy(rewards), torch.from_numpy(dones), torch.from_numpy(games))
        for row in range(number):
            h, f = 0.0, 1.0
            for t in range(7):
                h, f = 0.9 * h + float(rewards[row, t]), 0.9 * f
                over_steps[games[row]].append((h, f, h * h, h * f, f * f))
                if dones[row, t]:
                    h = f = 0.0
            last[games[row]].append((h, f, h * h, h * f, f * f))
    for game in (0, 2):
        np.testing.assert_allclose(scales.moments[0, :, game].numpy(), np.mean(over_steps[game], 0), rtol=1e-9)
        np.testing.assert_allclose(scales.moments[1, :, game].numpy(), np.mean(last[game], 0), rtol=1e-9)
    assert not scales.moments[:, :, 1].any()
    assert scales.deviation[1] == 0


def test_rewards_are_divided_by_their_own_games_deviation_and_clipped() -> None:
    scales = ReturnScales(torch.full((2,), 0.9, dtype=torch.float64))
    rewards = torch.zeros(4, 50)
    rewards[0, ::2], rewards[1, ::7] = 3.0, 0.01
    games = torch.tensor([0, 1, 0, 1])
    scales.update(rewards, torch.zeros(4, 50, dtype=torch.bool), games)
    rewards[1, 7] = 100.0
    normalised = scales.normalise(rewards, games)
    torch.testing.assert_close(normalised[0], (rewards[0] / scales.deviation[0]).float())
    torch.testing.assert_close(normalised[1, 14], (rewards[1, 14] / scales.deviation[1]).float(), rtol=1e-3, atol=0)
    assert normalised[1, 7] == 10
    assert not normalised[2:].any()


def test_rewards_in_units_of_returns_reach_the_losses_and_survive_a_resume(make_learner, make_batch) -> None:
    learner = make_learner(RETURN_NORM)
    assert learner.cfg.reward_clip == 1000
    for seed in range(3):
        batch = make_batch(learner, seed)
        batch["rewards"][::2] *= 1000
        seen = batch["obs"]["last_reward"].clone()
        prepared = minibatch_of(learner, copy.deepcopy(batch))
        torch.testing.assert_close(prepared.observations["last_reward"], seen)
        learner.train(batch)
    large, small = prepared.rewards[::2].std(), prepared.rewards[1::2].std()
    assert 0.5 < large / small < 2
    learner.save()
    resumed = make_learner(RETURN_NORM)
    torch.testing.assert_close(resumed.return_scales.moments, learner.return_scales.moments, rtol=0, atol=0)
    torch.testing.assert_close(resumed.return_scales.count, learner.return_scales.count, rtol=0, atol=0)
    batch = make_batch(learner, 9)
    one, other = (minibatch_of(each, copy.deepcopy(batch)).rewards for each in (learner, resumed))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_processes_that_pool_their_sums_have_the_statistics_of_all() -> None:
    g = torch.Generator().manual_seed(0)
    rewards, dones = torch.randn(8, 5, generator=g), torch.rand(8, 5, generator=g) < 0.2
    games = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1])
    valids = torch.rand(8, 5, generator=g) < 0.8
    halves = (slice(0, 4), slice(4, 8))

    def pooled(update) -> None:
        """Call ``update(half, pool)`` as two processes would: once to see what each gives, once with the mean."""
        given = []
        for half in halves:
            update(half, lambda mine: given.append(mine.clone()) or mine, trial=True)
        update(halves[0], lambda _: sum(given) / 2, trial=False)

    whole, part = (
        ReturnScales(torch.full((2,), 0.9, dtype=torch.float64)),
        ReturnScales(torch.full((2,), 0.9, dtype=torch.float64)),
    )
    whole.update(rewards, dones, games)

    def returns(half, pool, trial) -> None:
        (copy.deepcopy(part) if trial else part).update(rewards[half], dones[half], games[half], pool)

    pooled(returns)
    torch.testing.assert_close(part.moments, whole.moments)

    one, other = PopArtCritic(4, 2, 0.1), PopArtCritic(4, 2, 0.1)
    one.update(rewards, games, valids)

    def targets(half, pool, trial) -> None:
        (copy.deepcopy(other) if trial else other).update(rewards[half], games[half], valids[half], pool)

    pooled(targets)
    torch.testing.assert_close((other.mean, other.square, other.seen), (one.mean, one.square, one.seen))


# PopArt --------------------------------------------------------------------------------------------------------------


def test_popart_keeps_values_and_tracks_targets() -> None:
    """Against van Hasselt et al.'s equations in NumPy and float64, minibatch by minibatch."""
    torch.manual_seed(0)
    step = 0.05
    critic = PopArtCritic(6, 3, step)
    x = torch.randn(8, 6)
    games = torch.tensor([0, 1, 0, 1, 2, 2, 1, 0])
    rng = np.random.default_rng(0)
    mean, square, minibatches = np.zeros(3), np.ones(3), np.zeros(3)
    everywhere = games[:, None]
    for k in range(20):
        before = critic.values(critic(x), games).detach()
        # Game 2 is seldom there; the sizes of the three lie far apart, and change.
        targets = np.array([100.0, 0.3, 5.0])[games][:, None] * (rng.normal(size=(8, 4)) + k / 5)
        valids = rng.random((8, 4)) < 0.8
        valids[games.numpy() == 2] &= k % 3 == 1
        deviation = critic.update(torch.from_numpy(targets).float(), games, torch.from_numpy(valids))
        for game in range(3):
            own = targets[games.numpy() == game][valids[games.numpy() == game]]
            if len(own):
                minibatches[game] += 1
                rate = step / (1 - (1 - step) ** minibatches[game])
                mean[game] += rate * (own.mean() - mean[game])
                square[game] += rate * ((own**2).mean() - square[game])
        sigma = np.sqrt(np.clip(square - mean**2, 1e-4, 1e12))
        np.testing.assert_allclose(critic.mean.numpy(), mean, rtol=1e-4)
        np.testing.assert_allclose(deviation.numpy(), sigma[everywhere.numpy()], rtol=1e-3)
        after = critic.values(critic(x), games).detach()
        # Float32 rounds by some 1e-7 of the largest of the sum's parts, which is of the order of mu and sigma.
        size = 1 + torch.from_numpy(np.abs(mean) + sigma)[everywhere]
        assert ((after - before).abs() / size).max() < 1e-5


def test_popart_does_not_take_in_what_is_not_finite() -> None:
    popart = PopArtCritic(3, 2, 0.1)
    targets, games = torch.randn(2, 4), torch.tensor([0, 1])
    spoilt = targets.clone()
    spoilt[0, 1], spoilt[1] = float("nan"), float("inf")
    other = copy.deepcopy(popart)
    popart.update(spoilt, games, torch.ones(2, 4, dtype=torch.bool))
    other.update(targets, games, spoilt.isfinite())
    for one, expected in zip(popart.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, expected)


def test_popart_learns_in_units_of_each_game(make_learner, make_batch) -> None:
    """A game with rewards 100 times larger gets advantages and a value gradient of the same size."""
    flags = ("--popart=True", "--reward_treatment=none", "--popart_step_size=0.1")
    learner = make_learner(*flags, "--learning_rate=0.001")
    for seed in range(8):
        batch = make_batch(learner, seed)
        batch["rewards"][::2] *= 100
        learner.train(batch)
    minibatch = minibatch_of(learner, batch)
    losses = vtrace_losses(learner.actor_critic, minibatch, learner.cfg)
    large, small = losses.advantages[::2].std(), losses.advantages[1::2].std()
    assert 0.5 < large / small < 2
    assert losses.targets[::2].std() > 30 * losses.targets[1::2].std()
    losses.total.backward()
    grad = learner.actor_critic.critic_linear.linear.weight.grad.norm(dim=1)
    assert 0.1 < grad[0] / grad[1] < 10


@pytest.mark.parametrize("flags", [(), ("--policy_loss=ppo", "--num_epochs=2"), ("--decoder_mlp_layers", "8")])
def test_moving_popart_changes_units_and_nothing_else(make_learner, make_batch, flags) -> None:
    """The loss as a plain computation from the values of before: their errors in units of the new deviation."""
    learner = make_learner("--popart=True", *flags)
    learner.train(make_batch(learner, 1))
    minibatch = minibatch_of(learner, make_batch(learner, 2))
    popart = learner.actor_critic.popart
    still = copy.deepcopy(learner.actor_critic)
    still.popart.step_size = 0.0
    before = vtrace_losses(still, minibatch, learner.cfg)
    after = vtrace_losses(learner.actor_critic, minibatch, learner.cfg)
    assert (still.popart.mean != popart.mean).all()
    torch.testing.assert_close(after.values, before.values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after.targets, before.targets, rtol=1e-5, atol=1e-5)
    deviation = popart.deviation[minibatch.observations["game_index"][:, 0, 0].long()][:, None]
    expected = learner.cfg.value_loss_coeff * (((after.targets - before.values) / deviation) ** 2).mean()
    torch.testing.assert_close(after.value, expected, rtol=1e-4, atol=1e-6)
    old = still.popart.deviation[minibatch.observations["game_index"][:, 0, 0].long()][:, None]
    torch.testing.assert_close(after.advantages * deviation, before.advantages * old, rtol=1e-4, atol=1e-5)


def test_what_acts_stores_the_learners_values(make_learner, make_batch) -> None:
    learner = make_learner("--popart=True", "--popart_step_size=0.5")
    batch = make_batch(learner)
    batch["rewards"] *= 10
    learner.train(batch)
    batch = make_batch(learner, 1)
    losses = vtrace_losses(learner.actor_critic, minibatch_of(learner, copy.deepcopy(batch)), learner.cfg)
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
    values = []
    with torch.no_grad():
        for game in range(len(games.split(","))):
            observation["game_index"] = torch.full_like(observation["game_index"], game)
            out = model(observation, torch.zeros(len(actions), learner.cfg.rnn_size))
            values.append(out["values"])
        logits, value, _ = agent(
            {name: e[:, None] for name, e in observation.items()}, agent.initial_state(len(actions))
        )
    torch.testing.assert_close(logits[:, 0], out["action_logits"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(value[:, 0], torch.stack(values).mean(0), rtol=1e-4, atol=1e-4)
