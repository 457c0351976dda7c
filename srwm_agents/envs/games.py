"""Table of Procgen's games: distribution modes and score-normalisation constants."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MODES = ("easy", "hard", "extreme", "memory", "exploration")


@dataclass(frozen=True)
class Game:
    """One Procgen game: its modes, and its score constants in easy and hard mode.

    Constants are (R_min, R_max) of Cobbe et al., "Leveraging Procedural Generation to Benchmark Reinforcement
    Learning", ICML 2020 (arXiv:1912.01588), appendix C: R_min is the return of a policy without observations, R_max the
    highest possible return (where that is unbounded, one that is reached reliably).
    """

    name: str
    easy: tuple[float, float]
    hard: tuple[float, float]
    modes: tuple[str, ...]


def _game(name: str, easy: tuple[float, float], hard: tuple[float, float], *more_modes: str) -> Game:
    return Game(name, easy, hard, ("easy", "hard", *more_modes))


# Modes: Cobbe et al., 2020, and the simulator's sources; the simulator aborts the process on any other.
# The paper's appendix gives leaper (3, 10); Irie et al.'s code normalises with (1.5, 10). We use the former.
_GAMES = (
    _game("bigfish", (1, 40), (0, 40)),
    _game("bossfight", (0.5, 13), (0.5, 13)),
    _game("caveflyer", (3.5, 12), (2, 13.4), "memory", "exploration"),
    _game("chaser", (0.5, 13), (0.5, 14.2), "extreme"),
    _game("climber", (2, 12.6), (1, 12.6), "exploration"),
    _game("coinrun", (5, 10), (5, 10), "exploration"),
    _game("dodgeball", (1.5, 19), (1.5, 19), "extreme", "memory"),
    _game("fruitbot", (-1.5, 32.4), (-0.5, 27.2)),
    _game("heist", (3.5, 10), (2, 10), "memory", "exploration"),
    _game("jumper", (3, 10), (1, 10), "memory", "exploration"),
    _game("leaper", (3, 10), (1.5, 10), "extreme", "exploration"),
    _game("maze", (5, 10), (4, 10), "memory", "exploration"),
    _game("miner", (1.5, 13), (1.5, 20), "memory"),
    _game("ninja", (3.5, 10), (2, 10), "exploration"),
    _game("plunder", (4.5, 30), (3, 30)),
    _game("starpilot", (2.5, 64), (1.5, 35), "extreme"),
)
GAMES: dict[str, Game] = {game.name: game for game in _GAMES}

_RANDOM_EASY = {
    "bigfish": 0.88,
    "fruitbot": -2.64,
    "leaper": 2.41,
    "maze": 4.03,
    "plunder": 4.27,
    "starpilot": 1.39,
}
"""See :func:`random_return`."""

PAPER_GAMES = ("bigfish", "fruitbot", "maze", "leaper", "plunder", "starpilot")
"""The six games of Irie et al., ICML 2022."""
MEMORY_GAMES = ("dodgeball", "heist", "maze", "miner")
"""The memory-mode games of the same paper (500 levels)."""

NUM_ACTIONS = 15
ACTION_NAMES = (
    *("down-left", "left", "up-left", "down", "none", "up", "down-right", "right", "up-right"),
    *("D", "A", "W", "S", "Q", "E"),
)
"""What each action is: a direction, or a key whose meaning depends on the game."""
IMAGE_SHAPE = (3, 64, 64)
MAX_LEVEL = 2**31 - 1


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """For error messages: ``"did you mean 'maze'? "`` with the closest allowed name; empty if none is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def parse_games(games: str | Sequence[str]) -> list[str]:
    """Split ``"bigfish,maze"``, or copy a sequence, into a list of names, and check them.

    Raises:
        ValueError: no name, a name twice, or an unknown one; the message has the closest known name.
    """
    names = [name.strip() for name in games.split(",")] if isinstance(games, str) else list(games)
    names = [name for name in names if name]
    if not names:
        raise ValueError(f"no game named, allowed: {', '.join(GAMES)}")
    for name in names:
        if name not in GAMES:
            raise ValueError(f"unknown game {name!r}; {did_you_mean(name, GAMES)}allowed: {', '.join(GAMES)}")
        if names.count(name) > 1:
            raise ValueError(f"game {name!r} is named {names.count(name)} times, allowed: once")
    return names


def check_mode(games: Sequence[str], mode: str) -> None:
    """Raise ``ValueError`` unless the distribution mode exists in every game."""
    if mode not in MODES:
        raise ValueError(f"unknown distribution_mode {mode!r}, allowed: {', '.join(MODES)}")
    for name in games:
        if mode not in GAMES[name].modes:
            having = ", ".join(game.name for game in GAMES.values() if mode in game.modes)
            raise ValueError(
                f"game {name!r} has no distribution_mode {mode!r}, allowed: {', '.join(GAMES[name].modes)} "
                f"(games with {mode!r}: {having})"
            )


def check_levels(num_levels: int, start_level: int) -> None:
    """Raise ``ValueError`` unless [start_level, start_level + num_levels) are valid levels.

    With num_levels 0 (no bound) Procgen draws from all levels and takes no notice of start_level.
    """
    if not 0 <= num_levels <= MAX_LEVEL:
        raise ValueError(f"num_levels is {num_levels}, allowed: 0 (no bound) to {MAX_LEVEL}")
    if not 0 <= start_level <= MAX_LEVEL - num_levels:
        raise ValueError(f"start_level is {start_level}, allowed: 0 to {MAX_LEVEL - num_levels}")
    if num_levels == 0 and start_level:
        raise ValueError(
            f"start_level is {start_level}, but num_levels is 0, for which Procgen draws from all levels; allowed: "
            f"start_level 0, or a num_levels from 1 to {MAX_LEVEL - start_level}"
        )


def random_return(game: str, mode: str) -> float | None:
    """Mean return of uniformly random actions; None for what is no game or was not measured.

    Measured for six games in mode "easy", 1,000 episodes of each on levels 0-199, 500-699 and 1000-1599. The standard
    error of the mean is .16 or less. The episodes: ``experiments/procgen/runs/random`` in the repository.
    """
    return _RANDOM_EASY.get(game) if mode == "easy" else None


def normalised_score(game: str, mode: str, score: float) -> float:
    """Normalised score (R - R_min) / (R_max - R_min); modes other than "easy" use the hard constants.

    Source: Cobbe et al., ICML 2020, section 2.3. Deviation: the paper gives constants for easy and hard only.
    """
    low, high = GAMES[game].easy if mode == "easy" else GAMES[game].hard
    return (score - low) / (high - low)
