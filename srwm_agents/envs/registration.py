"""Registration of our environments with gymnasium, by its plug-ins (0.29) or by an import of this package (1.x).

:func:`register` imports the table of games only, not PyTorch, because it runs in every program that imports gymnasium
0.29 where this package is installed.
"""

from __future__ import annotations

from functools import partial
from typing import Any


def register() -> None:
    """Register ``srwm/Procgen-GAME-MODE-v0`` for each game and mode, ``srwm/Procgen-v0`` for several games,
    ``srwm/CartPole-positions-v0`` and ``srwm/FrameStack-v0``; once.
    """
    from gymnasium.envs import registration

    from srwm_agents.envs.games import GAMES

    multi_task = "srwm/Procgen-v0"
    if multi_task in registration.registry:
        return
    # Any environment with its last observations side by side.
    registration.register(id="srwm/FrameStack-v0", entry_point="srwm_agents.envs.frame_stack:make_frame_stack")
    for game in GAMES.values():
        for mode in game.modes:
            registration.register(
                id=f"srwm/Procgen-{game.name}-{mode}-v0",
                entry_point="srwm_agents.envs.single:ProcgenEnv",
                vector_entry_point=f"srwm_agents.envs.registration:vector_{game.name}_{mode}",
                kwargs={"game": game.name, "distribution_mode": mode},
            )
    registration.register(
        id="srwm/CartPole-positions-v0",
        entry_point="srwm_agents.envs.cartpole:CartPolePositions",
        vector_entry_point="srwm_agents.envs.cartpole:CartPolePositionsVector",
        max_episode_steps=500,
    )
    registration.register(id=multi_task, vector_entry_point="srwm_agents.envs.registration:make_vector")


def make_vector(num_envs: int, max_episode_steps: int | None = None, game: str | None = None, **options: Any) -> Any:
    """Entry point of gymnasium's ``make_vec`` for one C++ vector.

    gymnasium 1.x: ``make_vec(id, num_envs, **options)``; 0.29: ``make_vec(id, num_envs, vectorization_mode="custom",
    vector_kwargs=options)``.

    Args:
        num_envs: environments in all.
        max_episode_steps: must be None, since Procgen ends its episodes itself; gymnasium 0.29 always passes it.
        game: another name of ``games``, which gymnasium 1.x passes on from the specification.
        options: of :func:`srwm_agents.envs.make_procgen`.

    Raises:
        ValueError: ``max_episode_steps`` is given, no games are named, or as ``make_procgen``.
    """
    from srwm_agents.envs import make_procgen

    if max_episode_steps is not None:
        raise ValueError(f"max_episode_steps is {max_episode_steps}, allowed: None (Procgen ends its episodes itself)")
    games = options.pop("games", game)
    if games is None:
        raise ValueError(
            'no games named, expected vector_kwargs={"games": "bigfish,maze", …} (gymnasium 1.x: games="bigfish,maze")'
        )
    return make_procgen(games, num_envs, **options)


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
