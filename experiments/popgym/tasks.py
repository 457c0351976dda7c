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


def env_of(task: str) -> str:
    """The ``--env`` of a task."""
    return f"popgym:popgym-{task}-v0"
