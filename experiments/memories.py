"""Memories in tables and pictures: their names and colours, and means over seeds with intervals."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from srwm_agents import plotting
from srwm_agents.comparison.statistics import Estimate, mean, with_interval

LABELS = {
    "srwm": "SRWM",
    "sr_delta": "SR-Delta",
    "delta": "DeltaNet",
    "gated_delta": "Gated DeltaNet",
    "mlstm": "mLSTM",
    "shm": "SHM",
    "ffm": "FFM",
    "gru": "GRU",
    "lstm": "LSTM",
    "min_gru": "minGRU",
    "feedforward": "no memory",
}
"""Cores and what tables and pictures call them, in the order of columns and lines."""
_FIRST = ("srwm", "delta", "gru", "lstm", "feedforward", "gated_delta", "shm", "ffm")


def label(recipe: str) -> str:
    """A recipe's name in tables and pictures; recipes that are named like no core keep theirs."""
    core = recipe.removeprefix("small_")
    return LABELS.get(core, core) + (", small" if core != recipe else "")


def colour(recipe: str) -> str:
    """A memory's colour, the same in every picture."""
    core = recipe.removeprefix("small_")
    order = [*_FIRST, *(name for name in LABELS if name not in _FIRST)]
    return plotting.COLOURS[order.index(core) % len(plotting.COLOURS)] if core in order else plotting.INK


def ordered(recipes: list[str]) -> list[str]:
    """Recipes, each once, in the order of :data:`LABELS`; others follow."""
    names = list(LABELS)
    known = {name: i for i, name in enumerate(names)}
    return sorted(dict.fromkeys(recipes), key=lambda name: known.get(name.removeprefix("small_"), len(names)))


def estimate(scores: npt.NDArray[np.float64]) -> Estimate:
    """The mean of scores [seeds, tasks] with its 95 % bootstrap interval, seeds drawn for each task on its own."""
    return with_interval(mean, scores)


def cell(found: Estimate, digits: int = 3) -> str:
    """A mean with its interval, where there is one, as a table's cell."""
    text = f"{found.value:.{digits}f}"
    if np.isnan(found.low):
        return text
    return f"{text} ({found.low:.{digits}f} to {found.high:.{digits}f})"
