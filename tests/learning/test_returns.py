"""V-trace: golden numbers worked out by hand, a plain recursion, and its known limits."""

from __future__ import annotations

import math

import pytest
import torch

from srwm_agents.learning import vtrace


def test_golden_numbers() -> None:
    """Two steps, gamma 0.5, pi/mu = (2, 1/2), both clips at 1, by hand.

    rho = c = (1, 1/2); rewards (1, 2); V = (3, 4); V(x_2) = 6.
    delta_0 = 1 (1 + 0.5·4 - 3) = 0          delta_1 = 1/2 (2 + 0.5·6 - 4) = 1/2
    v_1 = 4 + 1/2 = 4.5                      v_0 = 3 + 0 + 0.5·1·(4.5 - 4) = 3.25
    adv_1 = 1/2 (2 + 0.5·6 - 4) = 1/2        adv_0 = 1 (1 + 0.5·4.5 - 3) = 0.25
    """
    targets, advantages = vtrace(
        torch.tensor([[math.log(2.0), math.log(0.5)]]),
        torch.tensor([[1.0, 2.0]]),
        torch.tensor([[0.5, 0.5]]),
        torch.tensor([[3.0, 4.0]]),
        torch.tensor([6.0]),
    )
    torch.testing.assert_close(targets, torch.tensor([[3.25, 4.5]]))
    torch.testing.assert_close(advantages, torch.tensor([[0.25, 0.5]]))


def test_the_last_step_learns_from_the_true_bootstrap() -> None:
    """Sample Factory's own V-trace replaces V(x_T) by one that makes this advantage zero."""
    _, advantages = vtrace(
        torch.zeros(1, 1), torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([5.0])
    )
    assert advantages.item() == pytest.approx(3.0)


def recursion(log_rhos, rewards, discounts, values, bootstrap, clip_rho, clip_c, lambda_):
    """Definition (1) of the paper, trajectory by trajectory and sum by sum, with Python floats."""
    targets, advantages = torch.zeros_like(values), torch.zeros_like(values)
    for b in range(values.shape[0]):
        v = [*values[b].tolist(), float(bootstrap[b])]
        steps = values.shape[1]
        ratio = [math.exp(z) for z in log_rhos[b].tolist()]
        rho, c = [min(clip_rho, z) for z in ratio], [lambda_ * min(clip_c, z) for z in ratio]
        r, g = rewards[b].tolist(), discounts[b].tolist()
        vs = []
        for s in range(steps):
            total = v[s]
            for t in range(s, steps):
                weight = 1.0
                for i in range(s, t):
                    weight *= g[i] * c[i]
                total += weight * rho[t] * (r[t] + g[t] * v[t + 1] - v[t])
            vs.append(total)
        vs.append(v[steps])
        for s in range(steps):
            targets[b, s] = vs[s]
            following = lambda_ * vs[s + 1] + (1 - lambda_) * v[s + 1]
            advantages[b, s] = rho[s] * (r[s] + g[s] * following - v[s])
    return targets, advantages


@pytest.mark.parametrize("lambda_", [1.0, 0.95, 0.0])
@pytest.mark.parametrize(("clip_rho", "clip_c"), [(1.0, 1.0), (2.0, 0.7)])
def test_equals_the_definition(clip_rho: float, clip_c: float, lambda_: float) -> None:
    g = torch.Generator().manual_seed(0)
    shape = (3, 7)
    log_rhos, rewards, values = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(3))
    discounts = 0.9 * (torch.rand(shape, generator=g) > 0.2).double()
    bootstrap = torch.randn(3, generator=g, dtype=torch.float64)
    result = vtrace(log_rhos, rewards, discounts, values, bootstrap, clip_rho=clip_rho, clip_c=clip_c, lambda_=lambda_)
    targets, advantages = recursion(log_rhos, rewards, discounts, values, bootstrap, clip_rho, clip_c, lambda_)
    torch.testing.assert_close(result.targets, targets)
    torch.testing.assert_close(result.advantages, advantages)


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 0.95, 1.0])
def test_on_policy_it_is_gae(lambda_: float) -> None:
    """Schulman et al., 2016, eq. 16 by its recursion, and its value targets, with an episode's end among the steps."""
    g = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(3, 7, generator=g), torch.randn(3, 7, generator=g)
    discounts, bootstrap = torch.full((3, 7), 0.99), torch.randn(3, generator=g)
    discounts[1, 3] = 0
    result = vtrace(torch.zeros(3, 7), rewards, discounts, values, bootstrap, lambda_=lambda_)
    following_value, following = bootstrap, torch.zeros(3)
    for t in reversed(range(7)):
        following = rewards[:, t] + discounts[:, t] * (following_value + lambda_ * following) - values[:, t]
        following_value = values[:, t]
        torch.testing.assert_close(result.advantages[:, t], following)
        torch.testing.assert_close(result.targets[:, t], values[:, t] + following)


def test_on_policy_targets_are_discounted_returns() -> None:
    rewards = torch.tensor([[1.0, 0.0, 2.0]])
    gamma = torch.full((1, 3), 0.9)
    targets, _ = vtrace(torch.zeros(1, 3), rewards, gamma, torch.randn(1, 3), torch.tensor([10.0]))
    torch.testing.assert_close(targets[0, 0], torch.tensor(1 + 0.81 * 2 + 0.729 * 10))


def test_nothing_crosses_the_end_of_an_episode() -> None:
    discounts = torch.tensor([[0.9, 0.0, 0.9]])
    rewards, values = torch.ones(1, 3), torch.zeros(1, 3)
    first = vtrace(torch.zeros(1, 3), rewards, discounts, values, torch.tensor([0.0])).targets
    other = vtrace(torch.zeros(1, 3), rewards, discounts, values, torch.tensor([99.0])).targets
    torch.testing.assert_close(first[:, :2], other[:, :2])


def test_wrong_shapes_are_named() -> None:
    z = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="bootstrap_value has shape"):
        vtrace(z, z, z, z, torch.zeros(3))
    with pytest.raises(ValueError, match="rewards has shape"):
        vtrace(z, z.T, z, z, torch.zeros(2))
    with pytest.raises(ValueError, match=r"lambda_ is 1\.5, expected from 0 to 1"):
        vtrace(z, z, z, z, torch.zeros(2), lambda_=1.5)
