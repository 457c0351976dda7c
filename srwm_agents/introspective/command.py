"""The command line: ``python -m srwm_agents introspective train --task …``."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from srwm_agents.command_help import Flag
from srwm_agents.command_line import OneLineParser, fail, program, reason, say, user_path
from srwm_agents.display import TrainingDisplay, make_console
from srwm_agents.experiment_folders import Contents, ExperimentFolder, experiment_path
from srwm_agents.files import write_atomically
from srwm_agents.introspective.checkpoint import CHECKPOINT_FILE, load_training, save_training
from srwm_agents.introspective.gradients import cheaper_gradient
from srwm_agents.introspective.tasks import TASKS
from srwm_agents.introspective.training import SOLVED, Evaluation, TrainConfig, Training
from srwm_agents.machine import add_threads_flag, use_threads
from srwm_agents.signals import StopRequest

RESULTS_FILE = "results.json"
CONTENTS = Contents(
    made=(CHECKPOINT_FILE, RESULTS_FILE, "trace.png", "trace.json", ".tmp-*"),
    marks=(CHECKPOINT_FILE,),
    lock=".introspective_lock",
)
"""What the experiments of this command consist of."""
SAVE_EVERY_SECONDS = 20
INTERRUPTED = 130


def make_parser() -> argparse.ArgumentParser:
    """``introspective train``; its flags are the fields of ``TrainConfig`` and where to put things."""
    parser = OneLineParser(
        prog=program("introspective"),
        description="Schmidhuber's introspective net of 1993: it reads and rewrites its own weights.",
        allow_abbrev=False,
    )
    tasks = "\n".join(f"  {name:<9} {task.about}" for name, task in TASKS.items())
    train = parser.add_subparsers(dest="command", required=True, metavar="train").add_parser(
        "train",
        help="train the initial weights on a task",
        description=f"Train the initial weights of one or more introspective nets.\n\ntasks:\n{tasks}",
        allow_abbrev=False,
    )
    for f in fields(TrainConfig):
        own = {name: task.defaults[f.name] for name, task in TASKS.items() if f.name in task.defaults}
        default = ", ".join(f"{name} {value}" for name, value in own.items()) if own else f.default
        train.add_argument(
            f"--{f.name}",
            action=Flag,
            type=type(f.default),
            choices=f.metadata["choices"],
            help=f.metadata["help"],
            allowed=f.metadata["allowed"].signs if f.metadata["allowed"] else "",
            default_text=str(default),
        )
    add = train.add_argument
    add("--train_dir", type=user_path, default=Path("train_dir"), help="Where experiments lie")
    add("--experiment", help="Folder in --train_dir (default: introspective_TASK)")
    add(
        "--restart_behavior",
        choices=("resume", "overwrite"),
        default="resume",
        help="If the experiment exists: go on with it, or begin anew",
    )
    add("--device", default="cpu", help="Where to compute; such small nets gain little from a GPU")
    add_threads_flag(train)
    add("--trace", action="store_true", help="Also write trace.png and trace.json: what the best net does to itself")
    return parser


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Do as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    try:
        return _train(args, console or make_console())
    except (ValueError, OSError) as error:
        return fail(reason(error), "introspective")
    except KeyboardInterrupt:  # outside of training, where a signal saves and stops
        say(f"{program('introspective')}: interrupted")
        return INTERRUPTED


def _train(args: argparse.Namespace, console: Console) -> int:
    given = {f.name: getattr(args, f.name) for f in fields(TrainConfig) if getattr(args, f.name) is not None}
    config = TrainConfig.of_task(given.pop("task", "boolean"), **given)
    try:
        torch.zeros(1, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device is {args.device!r}, which PyTorch cannot use here; try cpu or cuda") from error
    use_threads(args.threads, images=False, device=args.device)
    name = f"introspective_{config.task}" if args.experiment is None else args.experiment
    path = experiment_path(args.train_dir.absolute(), name)
    with ExperimentFolder(path, CONTENTS, args.restart_behavior) as folder:
        if args.restart_behavior == "resume" and (path / CHECKPOINT_FILE).exists():
            training = load_training(path, config, args.device)
            if training.update >= config.updates:
                _say(console, f"{path}: already trained for {training.update} of {config.updates} updates")
            else:
                _say(console, f"going on with {path} after {training.update} updates")
        else:
            training = Training(config, args.device)
        folder.begin()
        _describe(training, console)
        stop = _run(training, folder, console)
        if stop:
            say(f"{program('introspective')}: stopped and saved after {training.update} updates; "
                "the same command goes on")  # fmt: skip
            return stop.exit_status
        result = training.evaluate()
        write_atomically(path / RESULTS_FILE, json.dumps(_report(training, result), indent=1) + "\n")
        console.print(_table(training, result))
        written = [path / CHECKPOINT_FILE, path / RESULTS_FILE]
        if args.trace:
            from srwm_agents.introspective.trace import write_trace

            best = min(range(len(result.loss)), key=lambda index: result.loss[index])
            written += write_trace(training, best, path)
        for file in written:
            _say(console, f"wrote {file}")
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def _run(training: Training, folder: ExperimentFolder, console: Console) -> StopRequest:
    """Train, with a checkpoint every ``SAVE_EVERY_SECONDS`` and at the end; whether a signal ended it."""
    saved = time.monotonic()
    display = TrainingDisplay(console, training.config.updates, unit="updates", done=training.update)
    with StopRequest() as stop, display:
        for result in training.run():
            display.update(training.update, f"loss {min(result.loss):.3f}")
            if stop:
                break
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                folder.check()
                save_training(training, folder.path)
                saved = time.monotonic()
        folder.check()
        save_training(training, folder.path)
    return stop


def _describe(training: Training, console: Console) -> None:
    config, wiring = training.config, training.dynamics.wiring
    steps = training.evaluation_batch(0, 1).sequences.x.shape[1] * config.steps_per_input
    method = config.gradient
    if method == "auto":
        size = training.weights.element_size()
        method = f"{cheaper_gradient(wiring, steps, config.batch_size * config.num_seeds, size)} (the cheaper here)"
    console.print(
        f"{config.task}: {TASKS[config.task].about}\n"
        f"{wiring.num_units} units, {wiring.num_connections} connections, {wiring.num_bits}-bit addresses; "
        f"{steps} time steps a sequence; gradient: {method}",
        highlight=False,
        soft_wrap=True,
    )


def _report(training: Training, result: Evaluation) -> dict[str, Any]:
    return {
        "config": training.config.to_json(),
        "num_connections": training.dynamics.wiring.num_connections,
        "seeds": list(training.seeds),
        "loss": result.loss,
        "accuracy": result.accuracy,
        "solved": result.solved,
        "solved_from": SOLVED,
        "updates": training.update,
        "seconds": training.seconds,
        "curve": training.curve,
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": str(training.device),
            "threads": torch.get_num_threads(),
        },
    }


def _table(training: Training, result: Evaluation) -> Table:
    title = f"{sum(result.solved)} of {len(result.solved)} solved (≥ {SOLVED:.0%})"
    table = Table(title=title)
    for name in ("seed", "loss", "right", "solved"):
        table.add_column(name, justify="right")
    for seed, loss, accuracy, solved in zip(training.seeds, result.loss, result.accuracy, result.solved, strict=True):
        table.add_row(str(seed), f"{loss:.4f}", f"{accuracy:.1%}", "yes" if solved else "no")
    return table
