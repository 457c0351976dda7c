"""gymnasium plug-in: registers our environments when gymnasium is imported.

:func:`register` imports the table of games only, not PyTorch, because it runs in every program that imports gymnasium
where this package is installed. gymnasium puts ``srwm/`` before each name.
"""

from __future__ import annotations

from functools import partial
from typing import Any


def register() -> None:
    """Register ``Procgen-GAME-MODE-v0`` for each game and mode that Procgen has, and the multi-task ``Procgen-v0``."""
    from gymnasium.envs.registration import register as add

    from srwm_agents.envs.games import GAMES

    for game in GAMES.values():
        for mode in game.modes:
            add(
                id=f"Procgen-{game.name}-{mode}-v0",
                entry_point="srwm_agents.envs.single:ProcgenEnv",
                vector_entry_point=f"srwm_agents.envs.registration:vector_{game.name}_{mode}",
                kwargs={"game": game.name, "distribution_mode": mode},
            )
    add(id="Procgen-v0", vector_entry_point="srwm_agents.envs.registration:make_vector")


def make_vector(num_envs: int, max_episode_steps: int | None = None, **options: Any) -> Any:
    """Entry point of ``gymnasium.make_vec(…, vectorization_mode="custom", vector_kwargs=options)``.

    Args:
        num_envs: environments in all.
        max_episode_steps: must be None, since Procgen ends its episodes itself; gymnasium always passes it.
        options: of :func:`srwm_agents.envs.make_procgen`.

    Raises:
        ValueError: ``max_episode_steps`` is given, no games are named, or as ``make_procgen``.
    """
    from srwm_agents.envs import make_procgen

    if max_episode_steps is not None:
        raise ValueError(f"max_episode_steps is {max_episode_steps}, allowed: None (Procgen ends its episodes itself)")
    if "games" not in options:
        raise ValueError('no games named, expected vector_kwargs={"games": "bigfish,maze", …}')
    return make_procgen(num_envs=num_envs, **options)


def __getattr__(name: str) -> Any:
    """``vector_GAME_MODE``: :func:`make_vector` for one game and mode.

    gymnasium 0.29 does not pass a specification's kwargs to a custom vector environment, and writes specifications as
    JSON, so the entry point must be a name that contains game and mode.
    """
    what, _, rest = name.partition("_")
    game, _, mode = rest.partition("_")
    if what != "vector" or not mode:
        raise AttributeError(f"module 'srwm_agents.envs.registration' has no attribute {name!r}")
    return partial(make_vector, games=game, distribution_mode=mode)
