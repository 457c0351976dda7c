"""What a run plays: Procgen's games, or one Gymnasium environment. Everything that depends on it is here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import torch
from gymnasium import spaces

from srwm_agents.early_imports import FOR_TRAINED_NETWORKS, imported_meanwhile
from srwm_agents.envs.games import check_levels, check_mode
from srwm_agents.envs.mirrors import can_be_mirrored
from srwm_agents.integrations.sample_factory.per_game import random_starts
from srwm_agents.integrations.sample_factory.request import PROCGEN, Request, games_of
from srwm_agents.spaces.actions import ActionSpec

Typed = Mapping[str, Any]


class Suite(Protocol):
    """The tasks of a run, their vector environments, and what is recorded of them."""

    ignored: Mapping[str, str]
    """Flags that have no effect on these tasks, and why."""

    def tasks(self, request: Request) -> list[str]:
        """Names of the tasks, in the order of their indices; ConfigError for a name that cannot be."""
        ...

    def wrong(self, cfg: Any) -> str | None:
        """What of a finished configuration these tasks cannot do, in one line."""
        ...

    def vector(self, cfg: Any, number: int, device: torch.device | None, **options: Any) -> Any:
        """The ``number``-th vector environment of the run, as :class:`srwm_agents.envs.ProcgenVectorEnv` is one."""
        ...

    def actions(self, cfg: Any, space: spaces.Space[Any]) -> ActionSpec:
        """The environment's actions, of which the trainer knows ``space``."""
        ...

    def about(self, cfg: Any) -> str:
        """The tasks in a few words."""
        ...

    def record(self, cfg: Any) -> dict[str, Any]:
        """What a saved agent keeps of them."""
        ...

    def mode(self, cfg: Any) -> str | None:
        """Procgen's variant, by which scores are normalised; None where there is no such scale."""
        ...


class ProcgenSuite:
    """Games of Procgen, all in each vector environment."""

    ignored: Mapping[str, str] = {
        "encoder_mlp_layers": "observations are images (--encoder_conv_mlp_layers)",
        "last_reward": "agents for Procgen always see the last reward",
        "episode_step": "it is for --env=ID",
        "env_kwargs": "it is for --env=ID; Procgen has flags of its own",
    }

    def tasks(self, request: Request) -> list[str]:
        return games_of(request)

    def wrong(self, cfg: Any) -> str | None:
        try:
            check_mode(cfg.tasks, cfg.distribution_mode)
            check_levels(cfg.num_levels, cfg.start_level)
        except ValueError as error:
            return str(error)
        if cfg.value_bootstrap:
            ends = "Procgen does not tell time limits from other ends of episodes"
            return f"--value_bootstrap is True, allowed: False ({ends})"
        return None

    def vector(self, cfg: Any, number: int, device: torch.device | None, **options: Any) -> Any:
        from srwm_agents.envs import make_procgen

        # The first simulator takes two seconds to read its images, in which what the networks need can be imported.
        with imported_meanwhile(*(FOR_TRAINED_NETWORKS if cfg.in_process else ())):
            return make_procgen(
                cfg.games,
                cfg.vector_size,
                cfg.distribution_mode,
                cfg.num_levels,
                cfg.start_level,
                # Each vector has a seed of its own; a new run of a resumed experiment may see other levels than before.
                None if cfg.seed is None else cfg.seed + number,
                num_threads=cfg.env_threads,
                device=device,
                last_action=cfg.last_action,
                random_starts=random_starts(cfg),
                spread_starts=cfg.spread_starts,
                mirror=cfg.mirror and can_be_mirrored(cfg.tasks),
                **options,
            )

    def actions(self, cfg: Any, space: spaces.Space[Any]) -> ActionSpec:
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"a portable agent for Procgen needs a discrete action space, this one is {space}")
        return ActionSpec.discrete(int(space.n))

    def about(self, cfg: Any) -> str:
        last = cfg.start_level + cfg.num_levels - 1
        levels = "all levels" if cfg.num_levels == 0 else f"levels {cfg.start_level}-{last}"
        return f"{', '.join(cfg.tasks)} ({cfg.distribution_mode}, {levels})"

    def record(self, cfg: Any) -> dict[str, Any]:
        names = ("distribution_mode", "num_levels", "start_level")
        return {"games": list(cfg.tasks), **{name: cfg[name] for name in names}}

    def mode(self, cfg: Any) -> str | None:
        return cfg.distribution_mode


class GymnasiumSuite:
    """One Gymnasium environment, in each vector many times."""

    ignored: Mapping[str, str] = dict.fromkeys(
        (
            "games",
            "distribution_mode",
            "num_levels",
            "start_level",
            "random_starts",
            "spread_starts",
            "mirror",
            "game_gammas",
            "game_value_coeffs",
        ),
        "it is for --env=procgen",
    )

    def tasks(self, request: Request) -> list[str]:
        return [request["env"]]

    def wrong(self, cfg: Any) -> str | None:
        if not cfg.with_vtrace:
            return f"--with_vtrace is False, expected True with --env={cfg.env}"
        if cfg.save_best_metric == "normalised_score":
            return f"--save_best_metric is 'normalised_score', allowed with --env={cfg.env}: reward, len"
        try:
            _task(cfg).spec()
        except ValueError as error:
            return f"--env is {cfg.env!r}, allowed: {PROCGEN}, or the id of a Gymnasium environment: {error}"
        return None

    def vector(self, cfg: Any, number: int, device: torch.device | None, **options: Any) -> Any:
        from srwm_agents.envs.gymnasium_vector import MAX_SEED, make_gymnasium

        return make_gymnasium(
            cfg.env,
            cfg.vector_size,
            # No two vectors of a run, or of ranks that learn together, have an environment of the same seed.
            None if cfg.seed is None else (cfg.seed + number) * cfg.vector_size % (MAX_SEED + 1),
            kwargs=json.loads(cfg.env_kwargs),
            processes=cfg.env_threads,
            device=device,
            last_action=cfg.last_action,
            last_reward=cfg.last_reward,
            episode_step=cfg.episode_step,
            **options,
        )

    def actions(self, cfg: Any, space: spaces.Space[Any]) -> ActionSpec:
        return _actions(cfg.env, cfg.env_kwargs)

    def about(self, cfg: Any) -> str:
        return cfg.env + ("" if cfg.env_kwargs == "{}" else f" ({cfg.env_kwargs})")

    def record(self, cfg: Any) -> dict[str, Any]:
        return {"env": cfg.env, "env_kwargs": json.loads(cfg.env_kwargs)}

    def mode(self, cfg: Any) -> str | None:
        return None


def suite_of(settings: Any) -> Suite:
    """The suite that a request or a finished configuration asks for by ``--env``."""
    return ProcgenSuite() if settings["env"] == PROCGEN else GymnasiumSuite()


def _task(cfg: Any) -> Any:
    from srwm_agents.envs.gymnasium_task import GymnasiumTask

    return GymnasiumTask(cfg.env, json.loads(cfg.env_kwargs))


@lru_cache(maxsize=1)
def _actions(env: str, env_kwargs: str) -> ActionSpec:
    """The actions of an environment, which is made for a moment: once a process, though agents are saved often."""
    from srwm_agents.envs.gymnasium_task import GymnasiumTask

    return GymnasiumTask(env, json.loads(env_kwargs)).described()[1]
