"""The command line of evaluation: ``srwm-eval``, ``srwm eval``, and ``eval_rl.py`` in a checkout."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console

from srwm_agents.agent import AgentError
from srwm_agents.command_line import OneLineParser, fail, json_object, program, reason, say, user_path, writable_folder
from srwm_agents.display import TrainingDisplay, make_console, progress_bar
from srwm_agents.envs import SimulatorError
from srwm_agents.envs.games import MODES
from srwm_agents.evaluation.arenas import GymnasiumArena, ProcgenArena
from srwm_agents.evaluation.reports import aggregate_table, games_table, write_reports
from srwm_agents.evaluation.side_by_side import EvaluationError, play_ranges
from srwm_agents.evaluation.splits import NAMES
from srwm_agents.evaluation.statistics import aggregate, per_game, unseen
from srwm_agents.evaluation.subject import AGENT_FOLDERS, DEFAULT_SPLITS, subject_of
from srwm_agents.extras import MissingPackageError, require
from srwm_agents.machine import add_threads_flag, available_cores, use_threads
from srwm_agents.report_names import kept
from srwm_agents.signals import StopRequest

MAX_SEED = 2**31 - 1
EPISODES, EPISODES_ON_CPU = 200, 32
"""Of each game and range of levels, where nothing is asked. With the second, each environment plays one."""


def make_parser() -> argparse.ArgumentParser:
    """The command line; flags shared with training have its names."""
    parser = OneLineParser(
        prog=program("eval"),
        description="Evaluate a saved agent on Procgen levels that it has seen and on unseen ones, or on a Gymnasium "
        "environment.",
        allow_abbrev=False,
    )
    add = parser.add_argument_group("whom to evaluate").add_argument
    add("--experiment", help="An experiment of the training command; its portable agent is evaluated")
    add(
        "--agent",
        type=_agent,
        metavar="PATH",
        help="A portable agent's folder or file, or 'random' for the random policy (with --games or --env)",
    )
    add("--train_dir", type=user_path, default=Path("train_dir"), help="Where experiments lie")
    add("--load_checkpoint_kind", default="latest", choices=sorted(AGENT_FOLDERS), help="Which agent of an experiment")

    add = parser.add_argument_group("what it plays").add_argument
    add("--games", help="Some of the games that the agent was trained on, comma-separated; default: all of them")
    add(
        "--env",
        help="Play in this Gymnasium environment; default: the one that the agent was trained on, if it was one",
    )
    add(
        "--env_kwargs",
        type=json_object,
        metavar="JSON",
        help="Arguments that --env is made with, as JSON; default: as trained",
    )
    add("--distribution_mode", choices=MODES, help="Procgen's variant; default: as trained")
    add("--splits", help=f"Level ranges, comma-separated, of: {', '.join(NAMES)}; default: {DEFAULT_SPLITS}")
    add("--start_level", type=int, help="With --num_levels: this range of levels instead of --splits")
    add("--num_levels", type=int, help="Number of levels from --start_level; 0, from level 0: all levels")
    add(
        "--episodes",
        type=int,
        help=f"Episodes of each game and split; default: {EPISODES}, and {EPISODES_ON_CPU} of an agent that plays "
        "Procgen on a CPU",
    )

    acting = parser.add_argument_group("how it acts")
    add = acting.add_argument
    add("--policy", default="sampled", choices=("sampled", "greedy"), help="Sample actions, or take the likeliest")
    add("--forget", action="store_true", help="Wipe the memory before every step: what the agent is worth without it")
    add(
        "--seed",
        type=int,
        default=0,
        help="Of levels, actions and bootstrap: the same seed, --max_envs, --device and PyTorch, the same numbers; "
        f"0 to {MAX_SEED}",
    )

    add = parser.add_argument_group("speed").add_argument
    add("--max_envs", type=int, default=32, help="Environments a game, at most; ≥ 1")
    add(
        "--processes",
        type=int,
        help="Processes, each of which plays a range of levels; with 1 the ranges are played in turn, step by step. "
        "Numbers do not depend on it; default: one a range, at most one a CPU core. Of a Gymnasium environment: "
        "processes that step it; default: none",
    )
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Where the agent runs: cpu, cuda, …")
    add_threads_flag(acting)

    add = parser.add_argument_group("what is written").add_argument
    add(
        "--output",
        type=user_path,
        help="Folder of the reports; default: evaluation/ in the experiment, or evaluation/AGENT beside the agent",
    )
    add("--video", action="store_true", help="Also record a short video on unseen levels (or on the range given)")
    add("--video_seconds", type=float, default=20.0, help="Length of the video; > 0")
    return parser


def _agent(text: str) -> str:
    """The random policy's name, or the path of an agent."""
    return text if text == "random" else str(user_path(text))


def evaluate(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Evaluate as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    try:
        return _evaluate(args, console or make_console())
    except (AgentError, EvaluationError, MissingPackageError, SimulatorError, ValueError, OSError) as error:
        return fail(reason(error), "eval")
    except KeyboardInterrupt:
        say(f"{program('eval')}: interrupted, nothing was written")
        return 130


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {args.device!r}, which PyTorch cannot use here; try cpu or cuda") from error
    subject = subject_of(args)
    arena, splits, name = subject.arena, subject.splits, subject.name
    if not 0 <= args.seed <= MAX_SEED:
        raise ValueError(f"--seed is {args.seed}, allowed: 0 to {MAX_SEED}")
    if args.episodes is None:
        slow = subject.agent is not None and isinstance(arena, ProcgenArena) and not args.device.startswith("cuda")
        args.episodes = EPISODES_ON_CPU if slow else EPISODES
        if slow:
            usual = f"--episodes {EPISODES} for narrower intervals"
            console.print(f"{EPISODES_ON_CPU} episodes of each game and range, since this is a CPU; {usual}",
                          highlight=False)  # fmt: skip
    if args.episodes < 1:
        raise ValueError(f"--episodes is {args.episodes}, expected at least 1")
    if args.processes is not None and args.processes < 1:
        raise ValueError(f"--processes is {args.processes}, expected at least 1")
    if args.max_envs < 1:
        raise ValueError(f"--max_envs is {args.max_envs}, expected at least 1")
    if not 0 < args.video_seconds < float("inf"):
        raise ValueError(f"--video_seconds is {args.video_seconds}, expected more than 0")
    if args.video:
        require("eval", "imageio", "av")
        if isinstance(arena, GymnasiumArena):
            arena.check_renders()
    folder = writable_folder(args.output or subject.folder)  # now, and not after all the work
    # Some of cuDNN's algorithms add in another order each time; the same seed shall give the same numbers.
    torch.backends.cudnn.deterministic = True
    playing: dict[str, Any] = {
        "seed": args.seed,
        "deterministic": args.policy == "greedy",
        "device": "cpu" if subject.agent is None else args.device,
    }
    processes = min(len(splits), available_cores() if args.processes is None else args.processes)
    threads = use_threads(args.threads, images=subject.has_images, device=playing["device"], processes=processes)
    games = arena.tasks
    total = args.episodes * len(games) * len(splits)
    lines = TrainingDisplay(console, total, unit="episodes", done=0, quiet=console.is_terminal)
    with StopRequest() as stop, progress_bar(console, "episodes") as progress:
        whole = progress.add_task("all", total=total)
        tasks = [progress.add_task(split.name, total=args.episodes * len(games)) for split in splits]

        def finished(index: int, count: int) -> None:
            progress.advance(tasks[index], count)
            progress.advance(whole, count)
            lines.update(progress.tasks[0].completed)

        def played(index: int, frame: pd.DataFrame) -> None:
            if not console.is_terminal and len(frame):  # where bars are not drawn
                scored = frame["normalised_score"].notna().any()
                score, of = ("normalised_score", "normalised score") if scored else ("return", "return")
                console.print(f"{splits[index].name}: {len(frame):,} episodes, mean {of} {frame[score].mean():.3f}")

        frames = play_ranges(
            subject.player,
            arena,
            splits,
            processes=processes,
            threads=threads,
            on_episode=finished,
            on_range=played,
            stop=lambda: bool(stop),
            episodes=args.episodes,
            max_envs=args.max_envs,
            **playing,
        )
    episodes = pd.concat(frames, ignore_index=True)
    if stop and episodes.empty:
        say(f"{program('eval')}: interrupted before every environment had finished an episode, nothing was written")
        return stop.exit_status
    by_game, over_games = per_game(episodes, args.seed), pd.DataFrame()
    forgetting = ", no memory" if args.forget else ""
    console.print(games_table(by_game, f"{name}, {args.policy} actions, {arena.about}{forgetting}"))
    if isinstance(arena, ProcgenArena):
        pooled = pd.concat([episodes, unseen(episodes)])  # of no row where no unseen split was asked for
        over_games = aggregate(pooled, args.seed)
        console.print(aggregate_table(over_games))
    about = {
        "agent": name,
        "policy": args.policy,
        "forget": args.forget,
        **arena.record,
        "seed": args.seed,
        "episodes_per_game_and_split": args.episodes,
        "training": {} if subject.agent is None else subject.agent.config.training,
    }
    kind = f"{args.policy}_forget" if args.forget else args.policy
    if stop:
        kind += "_interrupted"
    files = write_reports(folder, f"eval_{kind}", episodes, by_game, over_games, about)
    if (told := kept(f"eval_{kind}", files[-1])) is not None:
        console.print(told, highlight=False, soft_wrap=True, markup=False)
    if args.video and not stop:
        from srwm_agents.evaluation.videos import record_video  # evaluating without a video needs no encoder

        video = folder / f"gameplay_{kind}.mp4"
        policy = subject.player.policy()
        files.append(record_video(video, policy, arena, splits[-1], seconds=args.video_seconds, **playing))
    for file in files:
        console.print(f"wrote {file}", highlight=False, soft_wrap=True, markup=False)
    if stop:
        say(f"{program('eval')}: interrupted after {len(episodes):,} of {total:,} episodes")
    return stop.exit_status
