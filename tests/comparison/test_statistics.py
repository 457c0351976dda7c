"""Statistics over runs and tasks, against the published package and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from srwm_agents.comparison.statistics import improvement, interquartile_mean, mean, with_interval

X = np.array(
    [
        [0.5, 0.59, 0.42, 0.23, 0.36, 0.2],
        [0.52, 0.9, 0.35, 0.31, 0.65, 0.61],
        [0.53, 0.22, 0.49, 0.71, 0.1, 0.36],
        [-0.07, 0.11, -0.05, 0.43, 0.12, 0.58],
        [0.55, 0.44, -0.26, 0.34, 0.49, 0.53],
    ]
)
Y = np.array(
    [
        [0.5, 0.26, 0.11, 0.16, 0.72, 0.16],
        [0.39, 0.67, 0.22, 0.71, 0.43, 0.42],
        [0.03, 0.42, 0.81, -0.06, 0.66, 0.44],
    ]
)
"""Two of the scores are equal, so that a tie counts."""


def test_point_estimates_are_rliables() -> None:
    """Expected values: rliable 1.2.0, ``aggregate_mean``, ``aggregate_iqm``, ``probability_of_improvement``."""
    assert [float(f(s)) for f in (mean, interquartile_mean) for s in (X, Y)] == pytest.approx(
        [0.3753333333333333, 0.39166666666666666, 0.4075, 0.39]
    )
    assert float(improvement(X, Y)) == pytest.approx(0.5333333333333333)


def test_intervals_are_rliables() -> None:
    """Expected values: rliable 1.2.0's ``get_interval_estimates``, 20,000 resamples (5,000 for the pair).

    Both ends are random: at 2,000 resamples an end of the 95 % interval has a standard error of about 4 % of the
    interval's width, so they may differ by a sixth of it.
    """
    for found, (low, high) in (
        (with_interval(mean, X), (0.29166667, 0.45633333)),
        (with_interval(interquartile_mean, X), (0.30935938, 0.4825)),
        (with_interval(mean, Y), (0.29055556, 0.49611111)),
        (with_interval(interquartile_mean, Y), (0.269, 0.529)),
        (with_interval(improvement, X, Y), (0.36666667, 0.68888889)),
    ):
        assert (found.low, found.high) == pytest.approx((low, high), abs=(high - low) / 6)
    assert with_interval(mean, X, seed=1) == with_interval(mean, X, seed=1) != with_interval(mean, X, seed=2)


def test_statistics_follow_their_definitions() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 4, (4, 3)).astype(float), rng.integers(0, 4, (7, 3)).astype(float)  # with many ties
    u = [stats.mannwhitneyu(x[:, task], y[:, task]).statistic / (4 * 7) for task in range(3)]
    assert float(improvement(x, y)) == pytest.approx(np.mean(u))
    assert float(improvement(x, y) + improvement(y, x)) == pytest.approx(1)
    for scores in (x, y, x[:1]):
        assert float(interquartile_mean(scores)) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))
    many = np.stack([x, x + 1.0]).astype(np.float64)
    assert interquartile_mean(many).tolist() == [float(interquartile_mean(one)) for one in many]


def test_the_bootstrap_is_stratified_and_needs_two_runs() -> None:
    constant = np.array([[0.0, 1.0]] * 4)  # without strata the mean would vary
    found = with_interval(mean, constant)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    alone = with_interval(mean, X[:1])
    assert alone.value == pytest.approx(X[0].mean())
    assert np.isnan([alone.low, alone.high]).all()
    assert np.isnan(with_interval(improvement, X, Y[:1]).low)
