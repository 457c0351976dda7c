"""Procgen: the table of games, the vector environment, and single environments for ``gymnasium.make``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srwm_agents.envs.games import (
    GAMES,
    IMAGE_SHAPE,
    MEMORY_GAMES,
    NUM_ACTIONS,
    PAPER_GAMES,
    Game,
    normalised_score,
    parse_games,
)
from srwm_agents.envs.simulator import SimulatorError
from srwm_agents.extras import require

if TYPE_CHECKING:
    from srwm_agents.envs.procgen import ProcgenVectorEnv, make_procgen
    from srwm_agents.envs.single import ProcgenEnv

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

_LAZY = {
    "ProcgenEnv": "srwm_agents.envs.single",
    "ProcgenVectorEnv": "srwm_agents.envs.procgen",
    "make_procgen": "srwm_agents.envs.procgen",
}


def __getattr__(name: str) -> Any:
    """Import lazily what needs gymnasium and PyTorch: gymnasium's plug-in needs the table of games only."""
    if name not in _LAZY:
        raise AttributeError(f"module 'srwm_agents.envs' has no attribute {name!r}")
    require("procgen", "gymnasium")
    return getattr(import_module(_LAZY[name]), name)
