"""Running statistics of games' returns, advantages and values, against plain float64 references."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from srwm_agents.learning import GameScales, PopArtCritic, ReturnScales

# Returns -------------------------------------------------------------------------------------------------------------


def play(seed: int, environments: int, steps: int, chance: float, reward: float, end: float):
    """Rewards and ends of episodes, [environments, steps]; a tenth of the episodes ends with ten times the reward."""
    rng = np.random.default_rng(seed)
    rewards = reward * (rng.random((environments, steps)) < chance)
    dones = rng.random((environments, steps)) < end
    return rewards + 10 * reward * (dones & (rng.random(dones.shape) < 0.1)), dones


def vec_normalize_deviation(rewards, dones, gamma: float) -> float:
    """The deviation of baselines' VecNormalize at the end, from environments that are not cut into segments."""
    g, seen = np.zeros(len(rewards)), []
    for t in range(rewards.shape[1]):
        g = gamma * g + rewards[:, t]
        seen.append(g.copy())
        g[dones[:, t]] = 0
    return float(np.std(seen))


@pytest.mark.parametrize("gamma", [0.99, 0.999])
def test_return_deviations_are_those_of_uncut_environments(gamma: float) -> None:
    """With segments of 32 steps, where taking the return before a segment as 0 would give a half or less."""
    scales = ReturnScales(torch.full((3,), gamma))
    games = [play(0, 64, 4096, 0.2, 1.0, 0.002), play(1, 64, 4096, 0.02, 0.1, 0.005), play(2, 64, 4096, 0.0, 1.0, 0.01)]
    index = torch.arange(3).repeat_interleave(64)
    for start in range(0, 4096, 32):
        pieces = [torch.from_numpy(np.concatenate([game[i][:, start : start + 32] for game in games])) for i in (0, 1)]
        scales.update(pieces[0].float(), pieces[1], index)
    expected = [vec_normalize_deviation(*game, gamma) for game in games]
    # Both are estimates from the same 8192 steps a game; the first segments, which do begin at 0, count 1/128.
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


def test_learners_that_share_a_batch_have_the_statistics_of_all(as_two_learners) -> None:
    """Also where one of them has more valid steps, or more of a game, than the other."""
    g = torch.Generator().manual_seed(0)
    rewards, dones = torch.randn(8, 5, generator=g), torch.rand(8, 5, generator=g) < 0.2
    rewards[:4] *= 5
    games = torch.tensor([0, 1, 1, 0, 1, 1, 1, 1])
    valids = torch.rand(8, 5, generator=g) < 0.8
    valids[:3] = False
    halves = (slice(0, 4), slice(4, 8))

    returns = ReturnScales(torch.full((2,), 0.9, dtype=torch.float64))
    shared = as_two_learners(
        lambda mine, pool, i: mine.update(rewards[halves[i]], dones[halves[i]], games[halves[i]], pool) or mine, returns
    )
    returns.update(rewards, dones, games)
    for mine in shared:
        torch.testing.assert_close(mine.moments, returns.moments)

    popart = PopArtCritic(4, 2, 0.1)
    shared = as_two_learners(
        lambda mine, pool, i: (mine.update(rewards[halves[i]], games[halves[i]], valids[halves[i]], pool), mine)[1],
        popart,
    )
    popart.update(rewards, games, valids)
    for mine in shared:
        torch.testing.assert_close((mine.mean, mine.square, mine.seen), (popart.mean, popart.square, popart.seen))

    scales = GameScales(2, torch.device("cpu"))
    shared = as_two_learners(
        lambda mine, pool, i: mine.update(games[halves[i]], rewards[halves[i]], valids[halves[i]], pool), scales
    )
    torch.testing.assert_close(torch.cat(shared), scales.update(games, rewards, valids))


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
        # Game 2 is rare; the sizes of the three differ widely, and change.
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


def test_popart_ignores_nonfinite_targets() -> None:
    popart = PopArtCritic(3, 2, 0.1)
    targets, games = torch.randn(2, 4), torch.tensor([0, 1])
    spoilt = targets.clone()
    spoilt[0, 1], spoilt[1] = float("nan"), float("inf")
    other = copy.deepcopy(popart)
    popart.update(spoilt, games, torch.ones(2, 4, dtype=torch.bool))
    other.update(targets, games, spoilt.isfinite())
    for one, expected in zip(popart.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, expected)
