"""The command ``inspect``: what the memory of a saved agent or classifier does, as a page, a film and numbers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from srwm_agents.command_line import OneLineParser, fail, json_object, program, reason, say, user_path, writable_folder
from srwm_agents.display import make_console
from srwm_agents.experiment_folders import experiment_path
from srwm_agents.extras import MissingPackageError
from srwm_agents.inspection import Recording
from srwm_agents.inspection.writing import NAMES, why_no_parquet, write_inspection
from srwm_agents.machine import add_threads_flag, use_threads
from srwm_agents.portable import AgentError, saved_kinds
from srwm_agents.signals import StopRequest

MAX_SEED = 2**31 - 1
SPLITS = ("train", "validation", "test")
KINDS = ("average", "best", "latest")
_PLAY = ("games", "env", "env_kwargs", "distribution_mode", "start_level", "num_levels", "steps", "seconds", "policy")
"""Flags of play, and those of few-shot classifiers: None unless they are given."""
_FEW_SHOT = ("examples", "dataset", "rotations", "data_dir", "cache_dir")


def make_parser() -> argparse.ArgumentParser:
    """The command line; flags shared with ``eval`` have its names."""
    parser = OneLineParser(
        prog=program("inspect"),
        description="Play with a saved agent (or show examples to a few-shot classifier), record what its memory does "
        "at every step, and write inspection.html, inspection.mp4, inspection.png and the numbers into one folder.",
        epilog="examples: inspect --agent agents/procgen/srwm --games starpilot; inspect --experiment mine; inspect "
        "--agent agents/fewshot/glyphs --examples 3",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--experiment", help="An experiment of the training command")
    add("--agent", type=user_path, help="A portable agent's or classifier's folder or file")
    add("--train_dir", type=user_path, default=Path("train_dir"), help="Where experiments lie")
    add("--load_checkpoint_kind", choices=KINDS, help="Which agent of an experiment; default: latest; few-shot: best")
    add(
        "--splits",
        choices=SPLITS,
        help="Levels (of test the first 200) or classes; default: test; few-shot: validation",
    )
    add("--seed", type=int, default=0, help=f"Of levels and actions, or of the episode; 0 to {MAX_SEED}")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="Where the agent runs: cpu, cuda, …")
    add_threads_flag(parser)
    add("--output", type=user_path, help="Folder of the files; default: inspection/ where eval writes")
    add("--overwrite", action="store_true", help="Replace the inspection that is in the folder")
    play = parser.add_argument_group("agents").add_argument
    play("--games", help="Some of the games that it was trained on, comma-separated, a track each; default: the first")
    play("--env", help="This Gymnasium environment; default: the one that the agent was trained on")
    play("--env_kwargs", type=json_object, help="Arguments that --env is made with, as JSON; default: as trained")
    play("--distribution_mode", help="Procgen's variant; default: as trained")
    play("--start_level", type=int, help="With --num_levels: this range of levels in the place of --splits")
    play("--num_levels", type=int, help="Number of levels from --start_level; 0, from level 0: all levels")
    play("--seconds", type=float, help="How long to play, in seconds of the film; default: 20")
    play("--steps", type=int, help="How long to play, in steps; in the place of --seconds")
    play("--policy", choices=("sampled", "greedy"), help="Sample actions, or take the likeliest; default: sampled")
    play("--forget", action="store_true", help="Wipe the memory before every step")
    shot = parser.add_argument_group("few-shot classifiers").add_argument
    shot("--examples", type=int, help="Examples of each class; default: as trained")
    shot("--dataset", help="Another data set than it was trained on")
    shot("--rotations", help="Data sets whose rotated classes are further classes ('' for none); default: as trained")
    shot("--data_dir", type=user_path, help="Folder of the data sets; default: data")
    shot("--cache_dir", type=user_path, help="Folder of decoded images")
    return parser


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Inspect as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    try:
        return _inspect(args, console or make_console())
    except (AgentError, MissingPackageError, RuntimeError, ValueError, OSError, FloatingPointError) as error:
        return fail(reason(error), "inspect")
    except KeyboardInterrupt:
        say(f"{program('inspect')}: interrupted, nothing was written")
        return 130


def _inspect(args: argparse.Namespace, console: Console) -> int:
    _check_numbers(args)
    path = _path(args)
    kinds = saved_kinds(path)
    few_shot = "few_shot_classifier" in kinds
    for name in _PLAY if few_shot else _FEW_SHOT:
        if getattr(args, name) is not None:
            what = "a few-shot classifier" if few_shot else "an agent that plays"
            raise ValueError(f"--{name} has no effect: {path} is {what}; leave it out")
    with StopRequest() as stop:
        recording, folder = _few_shot(args, path) if few_shot else _play(args, console, stop)
        begun = console.is_terminal
        if not len(recording.tracks[0]):
            say(f"{program('inspect')}: interrupted before the first step, nothing was written")
            return stop.exit_status
        files = write_inspection(folder, recording, lambda name: _say(console, f"writing {name}") if begun else None)
    for file in files:
        _say(console, f"wrote {file}")
    if files[2].suffix == ".csv":
        _say(console, f"numbers are CSV; Parquet needs pyarrow: {why_no_parquet()}")
    if stop:
        say(f"{program('inspect')}: interrupted after {len(recording.tracks[0]):,} steps, which were written")
    return stop.exit_status


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _check_numbers(args: argparse.Namespace) -> None:
    if (args.experiment is None) == (args.agent is None):
        raise ValueError("name one of --experiment and --agent")
    if not 0 <= args.seed <= MAX_SEED:
        raise ValueError(f"--seed is {args.seed}, allowed: 0 to {MAX_SEED}")
    if args.seconds is not None and not 0 < args.seconds < float("inf"):
        raise ValueError(f"--seconds is {args.seconds}, expected more than 0")
    for name in ("steps", "examples"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} is {getattr(args, name)}, expected at least 1")
    if args.steps is not None and args.seconds is not None:
        raise ValueError("name --seconds or --steps, not both")
    if str(args.agent) == "random":
        raise ValueError("--agent random has no memory to inspect; name a saved agent")
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {args.device!r}, which PyTorch cannot use here; try cpu or cuda") from error


def _path(args: argparse.Namespace) -> Path:
    """The agent's folder or file."""
    if args.agent is not None:
        return args.agent
    experiment = experiment_path(args.train_dir, args.experiment)
    if not experiment.is_dir():
        known = ", ".join(sorted(folder.parent.name for folder in args.train_dir.glob("*/agent"))) or "none"
        raise AgentError(f"no experiment {args.experiment!r} in {args.train_dir}; there: {known}")
    folders = {"latest": "agent", "best": "agent_best", "average": "agent_average"}
    if args.load_checkpoint_kind is not None:
        return experiment / folders[args.load_checkpoint_kind]
    best = experiment / folders["best"]
    if best.is_dir() and "few_shot_classifier" in saved_kinds(best):
        return best
    return experiment / folders["latest"]


def _folder(args: argparse.Namespace, usual: Path) -> Path:
    """The folder of the files, once it is known that they can be written there."""
    folder = args.output or usual / "inspection"
    if not args.overwrite:
        for name in NAMES:
            if (folder / name).exists():
                raise ValueError(f"{folder / name} is there already; name another --output, or --overwrite")
    return writable_folder(folder)  # now, and not after all the work


def _play(args: argparse.Namespace, console: Console, stop: StopRequest) -> tuple[Recording, Path]:
    from srwm_agents.evaluation.inspecting import record_play
    from srwm_agents.evaluation.subject import subject_of

    args.policy = args.policy or "sampled"
    args.seconds = 20.0 if args.seconds is None else args.seconds
    args.load_checkpoint_kind = args.load_checkpoint_kind or "latest"
    args.processes = None
    args.agent = None if args.agent is None else str(args.agent)
    subject = subject_of(args, default_splits="test", first_game=True)
    folder = _folder(args, subject.folder)
    # As in an evaluation, lest numbers differ.
    torch.backends.cudnn.deterministic = True
    use_threads(args.threads, images=subject.has_images, device=args.device)
    return record_play(subject, args, console, lambda: bool(stop)), folder


def _few_shot(args: argparse.Namespace, path: Path) -> tuple[Recording, Path]:
    from srwm_agents.fewshot import load_classifier
    from srwm_agents.fewshot.data import DEFAULT_DATA_DIR
    from srwm_agents.fewshot.inspecting import record_episode

    if args.forget:
        raise ValueError(f"--forget has no effect: {path} is a few-shot classifier; leave it out")
    args.data_dir = DEFAULT_DATA_DIR if args.data_dir is None else args.data_dir
    name = args.experiment or (path.parent if path.is_file() else path).resolve().name
    usual = Path("evaluation") / name
    if args.experiment is not None:
        usual = experiment_path(args.train_dir, args.experiment) / "evaluation"
    folder = _folder(args, usual)
    use_threads(args.threads, images=True, device=args.device)
    return record_episode(load_classifier(path, args.device), args, name), folder
