"""``fewshot eval``: evaluate a classifier, print a table, write CSV, JSON and a plot."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srwm_agents import plotting
from srwm_agents.command_line import writable_folder
from srwm_agents.display import TrainingDisplay, tracker
from srwm_agents.experiment_folders import ExperimentError, experiment_path
from srwm_agents.fewshot.building import Images, evaluation_tasks
from srwm_agents.fewshot.classifier import load_classifier
from srwm_agents.fewshot.evaluation import evaluate
from srwm_agents.fewshot.experiment import AGENT_FOLDERS
from srwm_agents.fewshot.tasks import Shape
from srwm_agents.files import write_together
from srwm_agents.machine import use_threads
from srwm_agents.processes import Processes
from srwm_agents.report_names import kept, report_name

EPISODES, EPISODES_ON_CPU = 10_000, 1_000
"""Of an evaluation that is not told how many; the first takes the mini-ImageNet classifier most of an hour on a CPU."""


def evaluate_agent(args: argparse.Namespace, console: Console) -> int:
    """Run the command with parsed arguments; returns the exit status."""
    if args.episodes is None:
        on_gpu = torch.cuda.is_available() and args.device != "cpu"
        args.episodes = EPISODES if on_gpu else EPISODES_ON_CPU
        if not on_gpu:
            all_of_them = f"--episodes {EPISODES} for the number that is usually reported"
            console.print(f"{EPISODES_ON_CPU:,} episodes, since this is a CPU; {all_of_them}", highlight=False)
    for name in ("episodes", "batch_size", "shots", "queries"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise ValueError(f"--{name} is {value}, expected at least 1")
    folder, name, output = _locate(args)
    use_threads(args.threads, images=True, device=args.device)
    with Processes(args.device) as processes:
        # Some cuDNN algorithms sum in a varying order; the same seed should give the same numbers.
        torch.backends.cudnn.deterministic = True
        classifier = load_classifier(folder, processes.device)
        config = classifier.config
        output = writable_folder(args.output or output)  # now, and not after all the work
        datasets = tuple((args.dataset or config.task.get("dataset", "glyphs")).split(","))
        rotated = config.task.get("rotations", "") if args.rotations is None else args.rotations
        channels, height, size = config.image_shape
        if height != size:
            raise ValueError(f"{folder} sees images of {height}×{size}, data sets give squares")
        where = (args.data_dir, args.cache_dir, size, channels, tracker(console))
        banks = Images.load(datasets, args.split, *where).banks(processes.device, rotated.split(","))
        shape = Shape(config.ways, args.shots or config.task.get("shots", 1), args.queries or config.ways)
        summaries, curves = [], []
        for task in evaluation_tasks(banks, shape):
            order = " then ".join(task.names)
            with TrainingDisplay(console, args.episodes, unit="episodes", done=0, title=order) as display:
                summary, curve = evaluate(
                    *(classifier, task, args.episodes, args.batch_size, args.seed), on_batch=_teller(display)
                )
            summaries.append(summary.assign(sequence=order))
            curves.append(curve.assign(sequence=order))
    about = {
        "agent": name,
        "datasets": list(datasets),
        "split": args.split,
        "rotations": rotated,
        "labels": config.labels,
        "core": config.core,
        "encoder": config.encoder,
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "ways": shape.ways,
        "shots": shape.shots,
        "queries_per_episode": shape.queries,
        "seed": args.seed,
        "training": config.training,
    }
    summary, curve = pd.concat(summaries, ignore_index=True), pd.concat(curves, ignore_index=True)
    console.print(_table(summary, f"{name}: {shape.ways}-way {shape.shots}-shot, {args.split} classes"))
    reports = f"eval_{args.split}_{shape.shots}shot"
    files = write_reports(output, reports, summary, curve, about)
    lines = [*filter(None, [kept(reports, files[-1])]), *(f"wrote {file}" for file in files)]
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0


def _teller(display: TrainingDisplay) -> Callable[[int, float, float], None]:
    """Shows the accuracy so far after each batch."""
    done = 0

    def tell(count: int, accuracy: float, interval: float) -> None:
        nonlocal done
        done += count
        width = "" if interval != interval else f" ± {100 * interval:.1f}"
        display.update(done, f"so far {100 * accuracy:.1f}{width} %")

    return tell


def _locate(args: argparse.Namespace) -> tuple[Path, str, Path]:
    """The classifier's folder, its name, and the default folder of reports."""
    if (args.experiment is None) == (args.agent is None):
        raise ValueError("name one of --experiment and --agent")
    if args.agent is not None:
        # The file of a classifier has the name of its folder.
        name = (args.agent.parent if args.agent.is_file() else args.agent).resolve().name
        return args.agent, name, Path("evaluation") / name
    experiment = experiment_path(args.train_dir, args.experiment)
    if not experiment.is_dir():
        known = ", ".join(sorted(file.parent.name for file in args.train_dir.glob("*/agent_best"))) or "none"
        raise ExperimentError(f"no experiment {args.experiment!r} in {args.train_dir}; there: {known}")
    return experiment / AGENT_FOLDERS[args.load_checkpoint_kind], args.experiment, experiment / "evaluation"


def write_reports(
    folder: Path, name: str, summary: pd.DataFrame, curve: pd.DataFrame, about: dict[str, Any]
) -> list[Path]:
    """Write ``name.csv`` (the curve), ``name.png`` and ``name.json`` (everything); returns their paths.

    Where ``name.json`` is, all three are of one evaluation. If the one that is there has more episodes, it stays, and
    these files are called ``name_of_N`` (:func:`srwm_agents.report_names.report_name`).
    """
    name = report_name(folder, name, "accuracy", int(summary["episodes"].sum()))
    content = {**about, "accuracy": _records(summary), "curve": _records(curve)}
    title = f"{about['agent']}: {about['ways']}-way {about['shots']}-shot, {about['split']} classes"
    return write_together(
        {
            folder / f"{name}.csv": curve.to_csv(index=False),
            folder / f"{name}.png": lambda path: plot_curve(curve, path, title, about["ways"]),
            folder / f"{name}.json": json.dumps(content, indent=1) + "\n",
        }
    )


def plot_curve(curve: pd.DataFrame, picture: Path, title: str, ways: int) -> Path:
    """Draw accuracy after each example in all, and by examples of the query's own class; bands are 95 % intervals."""
    labels = ("labelled examples shown, of all classes", "examples shown of the query's own class")
    with plotting.drawing(picture, plotting.PAGE_INCHES, 3.3) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axis, kind, label in zip(panels, ("examples", "shots"), labels, strict=True):
            rows = curve[curve["axis"] == kind]
            for segment, line in rows.groupby("segment", sort=False):
                accuracy, interval = 100 * line["accuracy"], 100 * line["interval"]
                (drawn,) = axis.plot(line["x"], accuracy, marker="o", ms=3, label=str(segment))
                band = (accuracy - interval, accuracy + interval)
                axis.fill_between(line["x"], *band, color=drawn.get_color(), alpha=0.2, lw=0)
            axis.axhline(100 / ways, color=plotting.INK, lw=0.8, ls=":")
            axis.set_xlabel(label)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.set_ylim(0, 100)
        panels[0].set_ylabel("accuracy, %")
        panels[0].annotate("chance", (1, 100 / ways), (0, 3), ("axes fraction", "data"), "offset points", ha="right")
        figure.suptitle(title, parse_math=False)
        if curve["segment"].nunique() > 1:
            plotting.label_lines(panels[1])
    return picture


def _table(summary: pd.DataFrame, title: str) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("data set")
    for name in ("accuracy, %", "95 % interval", "after examples", "episodes"):
        table.add_column(name, justify="right")
    for row in summary.to_dict("records"):
        table.add_row(
            str(row["segment"]),
            f"{100 * row['accuracy']:.2f}",
            f"± {100 * row['interval']:.2f}",
            str(row["examples"]),
            f"{row['episodes']:,}",
        )
    return table


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts, with None for NaN, which JSON lacks."""
    return json.loads(frame.to_json(orient="records") or "[]")
