"""Settings of single games: flags of the form GAME=VALUE,GAME=VALUE,…"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from srwm_agents.envs.random_starts import check_random_starts
from srwm_agents.integrations.sample_factory.request import ConfigError

FLAGS = ("game_gammas", "game_value_coeffs", "random_starts")

_Number = TypeVar("_Number", int, float)


def game_discounts(cfg: Any) -> list[float]:
    """Each game's discount, in the games' order.

    Raises:
        ConfigError: ``game_gammas`` cannot be read, names a game that is not played, or is not from 0 to 1.
    """
    discounts = _by_game(cfg, "game_gammas", float, "DISCOUNT")
    for game, discount in discounts.items():
        if not 0 <= discount <= 1:
            raise ConfigError(f"--game_gammas has {discount:g} for {game}, expected from 0 to 1")
    return [discounts.get(game, float(cfg.gamma)) for game in cfg.tasks]


def game_value_weights(cfg: Any) -> list[float]:
    """Each game's factor on the value loss, in the games' order.

    Raises:
        ConfigError: ``game_value_coeffs`` cannot be read, names a game that is not played, or is below 0.
    """
    factors = _by_game(cfg, "game_value_coeffs", float, "FACTOR")
    for game, factor in factors.items():
        if not 0 <= factor < float("inf"):
            raise ConfigError(f"--game_value_coeffs has {factor:g} for {game}, expected at least 0")
    return [factors.get(game, 1.0) for game in cfg.tasks]


def random_starts(cfg: Any) -> dict[str, int]:
    """The largest number of random steps with which episodes begin, of the games that have any.

    Raises:
        ConfigError: ``random_starts`` cannot be read, names a game that is not played, or is out of bounds.
    """
    longest = _by_game(cfg, "random_starts", int, "STEPS")
    try:
        check_random_starts(longest, cfg.tasks)
    except ValueError as error:
        raise ConfigError(f"--{error}") from error
    return longest


def only_of(games: list[str], flag: str) -> str:
    """The entries of a flag that are of these games."""
    return ",".join(entry for entry in flag.split(",") if entry.partition("=")[0].strip() in games)


def _by_game(cfg: Any, flag: str, read: Callable[[str], _Number], what: str) -> dict[str, _Number]:
    values = {}
    for entry in filter(None, cfg[flag].split(",")):
        game, _, value = (part.strip() for part in entry.partition("="))
        try:
            number = read(value)
        except ValueError:
            raise ConfigError(f"--{flag} is {cfg[flag]!r}, expected GAME={what},…") from None
        if game not in cfg.tasks:
            raise ConfigError(f"--{flag} names {game!r}, but --games are: {', '.join(cfg.tasks)}")
        values[game] = number
    return values
