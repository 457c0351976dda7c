"""The names of our environments for gymnasium, which calls :func:`register` by itself when it is imported.

It stands outside of the packages, and imports nothing until an environment is made, because it runs in every program
of every environment that we are installed in. gymnasium puts ``srwm/`` before each name.
"""

from __future__ import annotations

from functools import partial
from typing import Any


def register() -> None:
    """Register ``Procgen-GAME-MODE-v0`` for each game and mode that Procgen has, and the multi-task ``Procgen-v0``."""
    from gymnasium.envs.registration import register as add

    from envs.games import GAMES

    for game in GAMES.values():
        for mode in game.modes:
            add(
                id=f"Procgen-{game.name}-{mode}-v0",
                entry_point="envs.single:ProcgenEnv",
                vector_entry_point=f"srwm_gymnasium:vector_{game.name}_{mode}",
                kwargs={"game": game.name, "distribution_mode": mode},
            )
    add(id="Procgen-v0", vector_entry_point="srwm_gymnasium:make_vector")


def make_vector(num_envs: int, max_episode_steps: int | None = None, **options: Any) -> Any:
    """What ``gymnasium.make_vec(…, vectorization_mode="custom", vector_kwargs=options)`` makes.

    Args:
        num_envs: environments in all.
        max_episode_steps: gymnasium always passes it; None, since Procgen ends its episodes itself.
        options: of :func:`envs.make_procgen`.
    """
    from envs import make_procgen

    if max_episode_steps is not None:
        raise ValueError(f"max_episode_steps is {max_episode_steps}, allowed: None (Procgen ends its episodes itself)")
    if "games" not in options:
        raise ValueError('no games named, expected vector_kwargs={"games": "bigfish,maze", …}')
    return make_procgen(num_envs=num_envs, **options)


def __getattr__(name: str) -> Any:
    """``vector_GAME_MODE``: :func:`make_vector` for one game and mode.

    gymnasium 0.29 tells a custom vector environment nothing of its specification's kwargs, and writes specifications as
    JSON: the entry point has to be a name, and the name has to say it all.
    """
    what, _, rest = name.partition("_")
    game, _, mode = rest.partition("_")
    if what != "vector" or not mode:
        raise AttributeError(f"module 'srwm_gymnasium' has no attribute {name!r}")
    return partial(make_vector, games=game, distribution_mode=mode)
