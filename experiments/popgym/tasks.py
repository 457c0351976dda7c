"""POPGym's tasks by name, and groups of them."""

from __future__ import annotations

_SIZES = ("Easy", "Medium", "Hard")


def _sizes(*names: str) -> list[str]:
    return [f"{name}{size}" for name in names for size in _SIZES]


GROUPS: dict[str, list[str]] = {
    # Published GRUs reach 1.0, .18 and 1.0 (second-hand): what the harness must reach too.
    "check": ["RepeatPreviousEasy", "CountRecallEasy", "RepeatFirstEasy"],
    "twelve": _sizes("Autoencode", "Battleship", "Concentration", "RepeatPrevious"),
    "bandits": _sizes("MultiarmedBandit"),
    "all": _sizes(
        *("Autoencode", "RepeatPrevious", "RepeatFirst", "CountRecall", "PositionOnlyCartPole", "PositionOnlyPendulum"),
        *("VelocityOnlyCartpole", "NoisyPositionOnlyCartPole", "NoisyPositionOnlyPendulum", "MultiarmedBandit"),
        *("HigherLower", "Battleship", "Concentration", "MineSweeper"),
    ),
}
"""Groups of tasks; "all" are those that need no maze."""


def tasks_of(text: str) -> list[str]:
    """Tasks from a comma-separated list of tasks and groups, each once.

    Raises:
        ValueError: a name that is neither.
    """
    found: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in GROUPS and name not in GROUPS["all"]:
            raise ValueError(f"unknown task {name!r}, allowed: {', '.join((*GROUPS, *GROUPS['all']))}")
        found |= dict.fromkeys(GROUPS.get(name, [name]))
    if not found:
        raise ValueError(f"no task named, allowed: {', '.join((*GROUPS, *GROUPS['all']))}")
    return list(found)


def env_of(task: str) -> str:
    """The ``--env`` of a task."""
    return f"popgym:popgym-{task}-v0"
