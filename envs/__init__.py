"""Procgen: what the games are, many of them in one vector environment, and single ones for ``gymnasium.make``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from envs.games import GAMES, IMAGE_SHAPE, MEMORY_GAMES, NUM_ACTIONS, PAPER_GAMES, Game, normalised_score, parse_games
from envs.simulator import SimulatorError

if TYPE_CHECKING:
    from envs.procgen import ProcgenVectorEnv, make_procgen
    from envs.single import ProcgenEnv

__all__ = [
    "GAMES",
    "IMAGE_SHAPE",
    "MEMORY_GAMES",
    "NUM_ACTIONS",
    "PAPER_GAMES",
    "Game",
    "ProcgenEnv",
    "ProcgenVectorEnv",
    "SimulatorError",
    "make_procgen",
    "normalised_score",
    "parse_games",
]

_LATER = {"ProcgenEnv": "envs.single", "ProcgenVectorEnv": "envs.procgen", "make_procgen": "envs.procgen"}


def __getattr__(name: str) -> Any:
    """Import what needs gymnasium and PyTorch when it is asked for: gymnasium itself asks for the games' names."""
    if name not in _LATER:
        raise AttributeError(f"module 'envs' has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
