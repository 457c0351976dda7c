"""Command line of few-shot learning: ``python -m srwm_agents fewshot {train,eval,data}``."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from srwm_agents.command_line import OneLineParser, fail, program, quoted, reason, say, underscored, user_path
from srwm_agents.cores import core_setting_names
from srwm_agents.display import make_console
from srwm_agents.fewshot.data import DATASETS, DEFAULT_DATA_DIR, SPLITS, default_cache_dir
from srwm_agents.fewshot.experiment import AGENT_FOLDERS
from srwm_agents.fewshot.settings import SUBJECTS, Settings
from srwm_agents.machine import add_threads_flag, use_threads
from srwm_agents.recipes import load_recipe, recipe_names
from srwm_agents.settings import add_dataclass_flags, from_flags


def main(argv: Sequence[str]) -> int:
    """Run ``train``, ``eval`` or ``data``; returns the exit status. Errors are one line on stderr."""
    args = make_parser(_preset(argv)).parse_args(argv or ["--help"])
    try:
        return args.run(args, make_console())
    except (ValueError, OSError, FloatingPointError) as error:
        return fail(reason(error), "fewshot")
    except KeyboardInterrupt:
        say(f"{program('fewshot')}: interrupted")
        return 130


def make_parser(preset: str | None = None) -> OneLineParser:
    """Make the parser; a preset's settings become the defaults of ``train``."""
    options: dict[str, Any] = {"allow_abbrev": False}
    parser = OneLineParser(
        prog=program("fewshot"),
        description="Classifiers that learn new classes from a few labelled images.",
        **options,
    )
    commands = parser.add_subparsers(metavar="{train,eval,data}", required=True)

    text = "Train a few-shot classifier. The same command resumes a stopped run."
    train = commands.add_parser("train", help="train a classifier", description=text, **options)
    train.add_argument("--preset", choices=recipe_names("fewshot"), help="Settings by name; flags override them")
    add_settings(train)
    add_threads_flag(train)
    train.set_defaults(run=_train, **({"experiment": preset, **load_recipe("fewshot", preset)} if preset else {}))

    text = "Evaluate a classifier on classes that are not in training."
    evaluate = commands.add_parser("eval", help="evaluate a classifier", description=text, **options)
    _add_evaluation(evaluate)
    evaluate.set_defaults(run=_evaluate)

    text = "How to obtain each data set, and decoding it ahead of time."
    data = commands.add_parser("data", help="data sets", description=text, **options)
    actions = data.add_subparsers(metavar="{prepare}", required=True)
    text = "Decode data sets into the cache; for missing ones, print what to get, from where, under which licence."
    prepare = actions.add_parser("prepare", help="decode, or print what to get", description=text, **options)
    prepare.add_argument("--dataset", help=f"Comma-separated, of: {', '.join(DATASETS)}; default: all that are found")
    prepare.add_argument("--split", default="train,val,test", help="Comma-separated, of: train, val, test")
    prepare.add_argument("--image_size", type=int, help="Side of the images; default: the data set's")
    prepare.add_argument("--channels", type=int, choices=(1, 3), help="Grey or colour; default: the data set's")
    _add_directories(prepare)
    prepare.set_defaults(run=_prepare)
    return parser


def add_settings(parser: OneLineParser) -> None:
    """A flag for each field of :class:`Settings`, in groups by subject."""
    core = core_setting_names()
    names = [entry.name for entry in dataclasses.fields(Settings) if entry.name not in core]
    begins = [*map(names.index, SUBJECTS.values()), len(names)]
    for title, (begin, end) in zip(SUBJECTS, itertools.pairwise(begins), strict=True):
        add_dataclass_flags(parser.add_argument_group(title), Settings, names=names[begin:end])
    add_dataclass_flags(parser.add_argument_group("settings of the core"), Settings, names=core)


def _add_directories(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--data_dir", type=user_path, default=DEFAULT_DATA_DIR, help="Folder of the data sets")
    parser.add_argument("--cache_dir", type=user_path, help=f"Folder of decoded images; default: {default_cache_dir()}")


def _add_evaluation(parser: OneLineParser) -> None:
    add = parser.add_argument_group("whom to evaluate").add_argument
    add("--experiment", help="An experiment of fewshot train; its portable classifier is evaluated")
    add("--agent", type=user_path, help="A portable classifier's folder")
    add("--train_dir", type=user_path, default=Path("train_dir"), help="Folder of the experiments")
    add("--load_checkpoint_kind", default="best", choices=sorted(AGENT_FOLDERS), help="Which one of an experiment")

    add = parser.add_argument_group("on what").add_argument
    add("--dataset", help="Other data sets, comma-separated; default: as trained")
    add("--split", default="val", choices=SPLITS, help="Which classes")
    add("--shots", type=int, help="Examples a class; default: as trained")
    add("--queries", type=int, help="Queries an episode, each answered on its own; default: one a class")
    add("--rotations", help="Data sets whose rotated classes are further classes ('' for none); default: as trained")
    add("--episodes", type=int, help="Episodes; default: 10,000, and 1,000 on a CPU")
    add("--seed", type=int, default=0, help="Of the episodes")

    where = parser.add_argument_group("where")
    add = where.add_argument
    add("--batch_size", type=int, default=100, help="Episodes at once")
    add("--device", default="auto", help="cpu, cuda, cuda:1, …; auto: cuda where there is one")
    add_threads_flag(where)
    add(
        "--output",
        type=user_path,
        help="Folder of the reports; default: evaluation/ in the experiment, or evaluation/AGENT",
    )
    _add_directories(where)


def _preset(arguments: Sequence[str]) -> str | None:
    """The preset that a command line names; None without one, or if it is unknown."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--preset", nargs="?")
    name = finder.parse_known_args(underscored(arguments))[0].preset
    return name if name in recipe_names("fewshot") else None


def _train(args: argparse.Namespace, console: Console) -> int:
    from srwm_agents.fewshot.training import train

    settings = from_flags(Settings, args)
    use_threads(args.threads, images=True, device=settings.device)
    result = train(settings, console)
    if not result.is_main:  # of several processes only the main one prints
        return 0
    usual = Settings()
    where = [
        word
        for name in ("train_dir", "data_dir", "cache_dir")
        if getattr(settings, name) != getattr(usual, name)
        for word in (f"--{name}", getattr(settings, name))
    ]
    made = {kind: result.folder / name for kind, name in AGENT_FOLDERS.items() if (result.folder / name).is_dir()}
    if "best" not in made:  # before the first validation
        where += ["--load_checkpoint_kind", "latest"]
    lines = [
        *(f"{kind + ':':14}{folder}" for kind, folder in made.items()),
        f"TensorBoard:  {quoted('tensorboard', '--logdir', result.folder)}",
        f"evaluate it:  {program('fewshot')} {quoted('eval', *where, '--experiment', settings.experiment)}",
    ]
    if result.best_accuracy is not None:
        lines.insert(0, f"best on validation classes: {100 * result.best_accuracy:.2f} %")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if result.signal_number is not None:
        stopped = f"stopped by a signal at update {result.step:,}, saved; the same command goes on"
        say(f"{program('fewshot')}: {stopped}")
        return 128 + result.signal_number
    return 0


def _evaluate(args: argparse.Namespace, console: Console) -> int:
    from srwm_agents.fewshot.reporting import evaluate_agent

    return evaluate_agent(args, console)


def _prepare(args: argparse.Namespace, console: Console) -> int:
    from srwm_agents.fewshot.preparing import prepare

    return prepare(args, console)
