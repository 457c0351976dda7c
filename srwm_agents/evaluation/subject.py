"""What a command line asks to evaluate: who plays, where, on which levels, and where the reports go."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srwm_agents.agent import Agent, AgentError, load_agent
from srwm_agents.envs import IMAGE_SHAPE, NUM_ACTIONS, parse_games
from srwm_agents.envs.added_entries import ADDED
from srwm_agents.envs.games import check_levels, check_mode
from srwm_agents.evaluation.arenas import EPISODES, Arena, GymnasiumArena, ProcgenArena
from srwm_agents.evaluation.side_by_side import Player
from srwm_agents.evaluation.splits import NAMES, Split, make_splits
from srwm_agents.experiment_folders import experiment_path
from srwm_agents.policy import check_fits

KNOWN_INPUTS = {"last_reward", "last_action"}
DEFAULT_SPLITS = "train,test"
AGENT_FOLDERS = {"latest": "agent", "best": "agent_best", "average": "agent_average"}
_PROCGENS = ("games", "distribution_mode", "splits", "start_level", "num_levels")


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    name: str
    """The experiment's or agent's, or "random"."""
    agent: Agent | None
    """None for the random policy."""
    player: Player
    arena: Arena
    splits: list[Split]
    folder: Path
    """Where reports go unless the command line says so."""

    @property
    def has_images(self) -> bool:
        """Whether the agent has an image encoder, which is most of its work."""
        return self.agent is not None and bool(self.agent.config.image_shape or self.agent.config.images)


def subject_of(args: argparse.Namespace, *, default_splits: str = DEFAULT_SPLITS, first_game: bool = False) -> Subject:
    """Load and check what a parsed command line names.

    Args:
        args: with the flags of ``eval``.
        default_splits: where no levels are named.
        first_game: play the first of the agent's games, not all of them, where none is named.

    Raises:
        AgentError: no such agent, a damaged one, or one that does not fit where it is to play.
        ValueError: flags that do not go together.
    """
    if (args.experiment is None) == (args.agent is None):
        raise ValueError("name one of --experiment and --agent")
    if args.agent == "random":
        return _random(args)
    path, name, folder = _place(args)
    agent = load_agent(path, args.device)
    record = agent.config.environment
    env = args.env or record.get("env", "")
    if env:
        arena = _gymnasium(args, env, agent)
        probe = arena.make(1, EPISODES, 0)
        try:
            check_fits(agent, probe)
        except AgentError as error:
            raise AgentError(f"{path} does not fit {env}: {error}") from error
        finally:
            probe.close()
        if arena.record != {"env": record.get("env"), "env_kwargs": record.get("env_kwargs", {})}:
            folder /= arena.folder_name  # beside the reports of the environment that it was trained in
        return Subject(name, agent, Player.of(agent, args.device, forget=args.forget), arena, [EPISODES], folder)
    _check_procgen(agent, path)
    _refuse_env_kwargs(args)
    games = _games(args.games, record)
    games = games[:1] if first_game and args.games is None else games
    mode = args.distribution_mode or record.get("distribution_mode", "easy")
    check_mode(games, mode)
    arena = ProcgenArena(games, mode, "last_action" in agent.config.extras)
    splits = _splits(args, record, default_splits)
    return Subject(name, agent, Player.of(agent, args.device, forget=args.forget), arena, splits, folder)


def _random(args: argparse.Namespace) -> Subject:
    folder = Path("evaluation/random")
    if args.env is not None:
        arena = _gymnasium(args, args.env, None)
        player = Player(None, forget=args.forget, random_actions=arena.task.described()[1])
        return Subject("random", None, player, arena, [EPISODES], folder / arena.folder_name)
    _refuse_env_kwargs(args)
    if args.games is None:
        raise ValueError("--agent random needs --games, or --env")
    games, mode = parse_games(args.games), args.distribution_mode or "easy"
    check_mode(games, mode)
    splits = _splits(args, {"start_level": 0, "num_levels": 200})
    return Subject("random", None, Player(None, forget=args.forget), ProcgenArena(games, mode), splits, folder)


def _place(args: argparse.Namespace) -> tuple[Path, str, Path]:
    """The agent's file or folder, its name, and where its reports go."""
    if args.experiment is not None:
        experiment = experiment_path(args.train_dir, args.experiment)
        if not experiment.is_dir():
            known = sorted(folder.parent.name for folder in args.train_dir.glob("*/agent"))
            raise AgentError(
                f"no experiment {args.experiment!r} in {args.train_dir}; there: {', '.join(known) or 'none'}"
            )
        return experiment / AGENT_FOLDERS[args.load_checkpoint_kind], args.experiment, experiment / "evaluation"
    path = Path(args.agent)
    home = path.parent if path.is_file() else path  # the file of an agent has the name of its folder
    name = home.resolve().name
    return path, name, home.parent / "evaluation" / name


def _gymnasium(args: argparse.Namespace, env: str, agent: Agent | None) -> GymnasiumArena:
    for name in _PROCGENS:
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} has no effect on {env}: it is for Procgen; leave it out")
    record = {} if agent is None else agent.config.environment
    kwargs: dict[str, Any] = record.get("env_kwargs", {}) if record.get("env") == env else {}
    extras = {} if agent is None else agent.config.extras
    return GymnasiumArena(
        env,
        kwargs if args.env_kwargs is None else args.env_kwargs,
        **{name: name in extras for name in ADDED},
        processes=args.processes or 0,
    )


def _refuse_env_kwargs(args: argparse.Namespace) -> None:
    if args.env_kwargs is not None:
        raise ValueError("--env_kwargs has no effect on Procgen: it is for --env; leave it out")


def _check_procgen(agent: Agent, path: Path) -> None:
    """AgentError unless an agent that records no other environment sees and does what Procgen's do."""
    config = agent.config
    if config.num_actions != NUM_ACTIONS or config.actions:
        raise AgentError(
            f"{path} has {config.num_actions} actions, Procgen has {NUM_ACTIONS}: trained on something else"
        )
    if tuple(config.image_shape) != IMAGE_SHAPE:
        raise AgentError(f"{path} sees images of {list(config.image_shape)}, Procgen's are {list(IMAGE_SHAPE)}")
    if unknown := {*config.extras, *config.images, *config.categories} - KNOWN_INPUTS:
        raise AgentError(
            f"{path} wants the input {sorted(unknown)[0]!r}, Procgen gives: {', '.join(sorted(KNOWN_INPUTS))}"
        )


def _games(wanted: str | None, environment: dict[str, Any]) -> list[str]:
    trained = list(environment.get("games", ()))
    if wanted is None:
        if not trained:
            raise ValueError("the agent does not record its games; name them with --games")
        return parse_games(trained)
    games = parse_games(wanted)
    for game in games:
        if trained and game not in trained:
            raise ValueError(f"the agent was not trained on {game!r}, allowed: {', '.join(trained)}")
    return games


def _splits(args: argparse.Namespace, environment: dict[str, Any], default_splits: str = DEFAULT_SPLITS) -> list[Split]:
    if args.start_level is None and args.num_levels is None:
        wanted = default_splits if args.splits is None else args.splits
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        if not names:
            raise ValueError(f"--splits is {wanted!r}, expected some of: {', '.join(NAMES)}")
        return make_splits(names, environment)
    if args.start_level is None or args.num_levels is None:
        raise ValueError("--start_level and --num_levels go together")
    if args.splits is not None:
        raise ValueError("name --splits or --start_level and --num_levels, not both")
    check_levels(args.num_levels, args.start_level)
    name = f"levels {args.start_level}-{args.start_level + args.num_levels - 1}" if args.num_levels else "all levels"
    return [Split(name, args.start_level, args.num_levels)]
