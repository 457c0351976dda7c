"""Procgen: what the games are, and many of them in one vector environment."""

from envs.games import GAMES, IMAGE_SHAPE, MEMORY_GAMES, NUM_ACTIONS, PAPER_GAMES, Game, normalised_score, parse_games
from envs.procgen import ProcgenVectorEnv, make_procgen
from envs.simulator import SimulatorError

__all__ = [
    "GAMES",
    "IMAGE_SHAPE",
    "MEMORY_GAMES",
    "NUM_ACTIONS",
    "PAPER_GAMES",
    "Game",
    "ProcgenVectorEnv",
    "SimulatorError",
    "make_procgen",
    "normalised_score",
    "parse_games",
]
