"""Evaluation splits: named ranges of levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srwm_agents.envs.games import did_you_mean

UNSEEN = (1000, 1200, 1400)
"""First levels of the three unseen splits of 200 levels each; Irie et al., ICML 2022, appendix."""
VALIDATION = (500, 200)
"""First level and number of levels of the split for choosing settings, disjoint from training and unseen levels."""
NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """A named range of levels."""

    name: str
    start_level: int
    num_levels: int


def make_splits(names: Sequence[str], environment: Mapping[str, Any]) -> list[Split]:
    """Make splits by name: "train" has the levels that ``environment`` records, "test" means the three unseen splits.

    Raises:
        ValueError: an unknown name; "train" for an agent that does not record its levels.
    """
    splits: list[Split] = []
    for name in names:
        if name == "test":
            splits += [Split(f"test {start}-{start + 199}", start, 200) for start in UNSEEN]
        elif name == "validation":
            splits.append(Split("validation", *VALIDATION))
        elif name == "train":
            if "num_levels" not in environment or "start_level" not in environment:
                raise ValueError("the agent does not record its training levels; name them: --start_level --num_levels")
            splits.append(Split("train", int(environment["start_level"]), int(environment["num_levels"])))
        else:
            raise ValueError(f"unknown split {name!r}; {did_you_mean(name, NAMES)}allowed: {', '.join(NAMES)}")
    return splits
