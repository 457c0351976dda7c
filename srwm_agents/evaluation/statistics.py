"""Statistics of evaluation episodes: means, bootstrap intervals, aggregates over games."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95

Samples = tuple[npt.NDArray[np.float64], ...]


def per_game(episodes: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Mean of each game on each split, with its 95 % bootstrap interval.

    Args:
        episodes: rows as :func:`srwm_agents.evaluation.rollouts.play_episodes` returns them, of any number of splits.
        seed: of the bootstrap.

    Returns:
        One row for each split and game, with columns episodes, return, return_low, return_high, and the same three for
        normalised_score (NaN where that is unknown); the interval is NaN for fewer than two episodes.
    """
    rows: list[dict[str, Any]] = []
    for name, group in episodes.groupby(["split", "game"], sort=False):
        split, game = cast(tuple[str, str], name)
        row: dict[str, Any] = {"split": split, "game": game, "episodes": len(group)}
        for column in ("return", "normalised_score"):
            sample = (group[column].to_numpy(dtype=np.float64),)
            row[column] = float(sample[0].mean())
            unknown = np.isnan(row[column])  # without a scale of scores, as outside of Procgen
            low, high = (row[column], row[column]) if unknown else _interval(sample, _mean, seed)
            row[f"{column}_low"], row[f"{column}_high"] = low, high
        rows.append(row)
    return pd.DataFrame(rows)


def aggregate(episodes: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Mean and interquartile mean (IQM) of the normalised score over games, a row a split.

    The bootstrap is stratified by game: each game's episodes are resampled on their own. IQM after Agarwal et al.,
    "Deep RL at the Edge of the Statistical Precipice", NeurIPS 2021. Deviation: one agent's episodes take the place of
    the paper's runs, so the interval says nothing about training seeds.
    """
    rows: list[dict[str, Any]] = []
    for split, group in episodes.groupby("split", sort=False):
        samples = tuple(
            game["normalised_score"].to_numpy(dtype=np.float64) for _, game in group.groupby("game", sort=False)
        )
        row: dict[str, Any] = {"split": split, "games": len(samples), "episodes": len(group)}
        for name, statistic in (("mean", _mean), ("iqm", _iqm)):
            row[name] = float(statistic(*samples))
            row[f"{name}_low"], row[f"{name}_high"] = _interval(samples, statistic, seed)
        rows.append(row)
    return pd.DataFrame(rows)


def unseen(episodes: pd.DataFrame) -> pd.DataFrame:
    """The episodes of all unseen splits ("test …"), relabelled as one split."""
    return episodes[episodes["split"].str.startswith("test")].assign(split="all three test ranges")


def _mean(*samples: npt.NDArray[np.float64], axis: int = -1) -> Any:
    return np.mean([sample.mean(axis=axis) for sample in samples], axis=0)


def _iqm(*samples: npt.NDArray[np.float64], axis: int = -1) -> Any:
    return stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis)


def _interval(samples: Samples, statistic: Callable[..., Any], seed: int) -> tuple[float, float]:
    if min(map(len, samples)) < 2:
        return float("nan"), float("nan")
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
