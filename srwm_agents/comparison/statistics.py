"""Statistics over runs and tasks: mean, interquartile mean, probability of improvement, bootstrap intervals.

Source: Agarwal et al., "Deep RL at the Edge of the Statistical Precipice", NeurIPS 2021. The formulas are those of that
paper's package, rliable 1.2.0, with which the tests compare. Scores are arrays
[…, runs, tasks]; statistics reduce the last two axes, so that all of a bootstrap's samples are one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
"""rliable's default for probabilities of improvement; its examples take 50,000 for aggregates."""
CONFIDENCE = 0.95

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A statistic and its bootstrap interval, NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")


def mean(scores: Scores) -> Scores:
    """Mean over tasks of the mean over runs: [..., runs, tasks] to [...]."""
    return scores.mean(axis=(-2, -1))


def interquartile_mean(scores: Scores) -> Scores:
    """IQM, the mean of the middle half of all runs and tasks together: [..., runs, tasks] to [...].

    A quarter of the scores is cut off at either end, rounded down to whole ones.
    """
    ordered = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def improvement(x: Scores, y: Scores) -> Scores:
    """Probability that a run of ``x`` is better than one of ``y`` on a task, the mean over tasks; ties count one half.

    For each task it is Mann-Whitney's U over the number of pairs. ``x`` [..., n, tasks], ``y`` [..., m, tasks]; the
    result is [...].
    """
    difference = x[..., :, None, :] - y[..., None, :, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(-3, -2, -1))


def with_interval(statistic: Callable[..., Scores], *samples: Scores, seed: int = 0) -> Estimate:
    """A statistic of one or two arrays of scores with its stratified percentile bootstrap interval.

    Runs are drawn with replacement for each task on its own, and for each array on its own. Where an array has one run
    there is nothing to draw from, and no interval.

    Args:
        statistic: a function of as many arrays [runs, tasks] as there are samples.
        samples: arrays [runs, tasks]; their numbers of runs may differ.
        seed: of the bootstrap.
    """
    value = float(statistic(*samples))
    if min(len(sample) for sample in samples) < 2:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    drawn = statistic(*(_resampled(sample, rng) for sample in samples))
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _resampled(scores: Scores, rng: np.random.Generator) -> Scores:
    """[runs, tasks] to [RESAMPLES, runs, tasks]."""
    rows: Any = rng.integers(len(scores), size=(RESAMPLES, *scores.shape))
    return scores[rows, np.arange(scores.shape[1])]
