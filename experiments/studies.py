"""Studies that compare memories on many small tasks: runs spread over GPUs and cores, and what is collected of them.

A run is ``train_rl.py`` with the preset and the settings of a recipe (``recipes/NAME.yaml``) on one task with one seed,
in TRAIN_DIR/RECIPE_sSEED/TASK. It goes on from its checkpoint if there is one, so that the same command finishes what
was stopped. Seeds come first, then tasks: every recipe has the first task before any has the second. Each place on a
GPU takes the next run when it has finished one. After ``--seconds`` none is begun, and those under way are stopped,
saved. ``--collect`` copies settings, curves and the study's own tables into ``runs/RECIPE_sSEED/``, or with ``--runs``
into another folder: of runs with further flags, say, which must not be mixed with the others.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import places
from experiments.gpus import visible_gpus
from experiments.recipes import Resolved, read_yaml, recipe_names, resolve
from experiments.runs import write_compressed, write_config
from srwm_agents.recipes import yaml_text

DRAFT = "run.yaml"
"""What a run is, in its experiment's folder, for ``--collect``."""
STOPPED = 128 + signal.SIGINT
"""Exit status of training that was asked to stop, and has saved."""
EVALUATION_SECONDS = 900
"""An evaluation may take so long after the end of ``--seconds``."""


@dataclass(frozen=True)
class Study:
    """Tasks, and memories that are trained on each of them."""

    recipes: Path
    """Folder of the recipes; those that others build on have names that end with "common"."""
    runs: Path
    """Folder into which runs are collected."""
    groups: Mapping[str, Sequence[str]]
    """Tasks by the name of a group; "all" has every task."""
    flags: Callable[[str], Mapping[str, Any]]
    """What ``train_rl.py`` needs to play a task; a recipe's settings override it."""
    frames: float
    """Of a run, by default."""
    first: tuple[str, str]
    """Recipes and tasks by default, as the command line takes them."""
    evaluation: Callable[[str, Path], list[Any]] | None = None
    """The command that evaluates the run of a task in an experiment's folder, after training; None: there is none."""
    tables: tuple[str, ...] = ()
    """Tables that an evaluation leaves in the experiment's folder, NAME.csv, which are collected as NAME.csv.xz."""

    def tasks(self, text: str) -> list[str]:
        """Tasks from a comma-separated list of tasks and groups, each once.

        Raises:
            ValueError: a name that is neither.
        """
        allowed = ", ".join((*self.groups, *self.groups["all"]))
        found: dict[str, None] = {}
        for name in filter(None, (part.strip() for part in text.split(","))):
            if name not in self.groups and name not in self.groups["all"]:
                raise ValueError(f"unknown task {name!r}, allowed: {allowed}")
            found |= dict.fromkeys(self.groups.get(name, [name]))
        if not found:
            raise ValueError(f"no task named, allowed: {allowed}")
        return list(found)

    def jobs(self, recipes: str, tasks: str, seeds: str) -> list[Job]:
        """The runs that a command line names, task by task.

        Raises:
            ValueError: an unknown recipe or task, or a seed that is no number.
        """
        if not re.fullmatch(r"\d+(,\d+)*", seeds):
            raise ValueError(f"--seeds is {seeds!r}, expected numbers, comma-separated")
        resolved = {name.strip(): resolve(name.strip(), self.recipes) for name in recipes.split(",")}
        return [
            Job(recipe, settings, task, self.flags(task), int(seed))
            for seed in seeds.split(",")
            for task in self.tasks(tasks)
            for recipe, settings in resolved.items()
        ]


@dataclass(frozen=True)
class Job:
    """One task with one memory and one seed."""

    recipe: str
    resolved: Resolved
    task: str
    task_flags: Mapping[str, Any]
    seed: int

    @property
    def group(self) -> str:
        """The folder of all tasks with this memory and seed."""
        return f"{self.recipe}_s{self.seed}"

    def flags(self, frames: int) -> list[str]:
        """Of ``train_rl.py``, without the place of the experiment."""
        settings: dict[str, Any] = {"seed": self.seed, "train_for_env_steps": frames}
        settings |= {**self.task_flags, **self.resolved.settings}
        texts = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in settings.items()}
        return [f"--preset={self.resolved.preset}", *(f"--{name}={text}" for name, text in texts.items())]


def train(study: Study, job: Job, place: places.Place, args: argparse.Namespace, until: float) -> None:
    """Train and evaluate one run; what it prints goes to a log beside it."""
    folder = args.train_dir / job.group / job.task
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*job.flags(int(args.frames)), *args.flags]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=places.ROOT, capture_output=True, text=True, check=False
    )
    draft = {"recipe": job.recipe, "task": job.task, "seed": job.seed, "command": shlex.join(["train_rl.py", *flags])}
    (folder / DRAFT).write_text(yaml_text(draft | {"commit": commit.stdout.strip() or None}))
    where = [f"--train_dir={folder.parent}", f"--experiment={job.task}"]
    began = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        status = places.run([sys.executable, "train_rl.py", *where, *flags], place, log, until)
        told = f"status {status}"
        if study.evaluation is not None and status in (0, STOPPED):
            late = time.monotonic() + EVALUATION_SECONDS
            status = places.run([sys.executable, *study.evaluation(job.task, folder)], place, log, late)
            told += f", evaluation {status}"
    print(f"{job.group} {job.task}: {told}, {time.monotonic() - began:.0f} s", flush=True)


def collect(study: Study, train_dir: Path) -> None:
    """Copy settings and tables of all runs that there are; tasks that were collected earlier stay as they are."""
    for group in sorted({draft.parent.parent for draft in train_dir.glob(f"*/*/{DRAFT}")}):
        target = study.runs / group.name
        target.mkdir(parents=True, exist_ok=True)
        before = read_yaml(target / "config.yaml") if (target / "config.yaml").is_file() else {}
        tasks = before.get("tasks", {})
        for draft in sorted(group.glob(f"*/{DRAFT}")):
            if not (draft.parent / "curves.csv").is_file():
                continue
            about, curve = read_yaml(draft), pd.read_csv(draft.parent / "curves.csv").drop(columns="normalised_score")
            _put(target / "curves.csv.xz", about["task"], curve)
            for name in study.tables:
                if (draft.parent / f"{name}.csv").is_file():
                    _put(target / f"{name}.csv.xz", about["task"], pd.read_csv(draft.parent / f"{name}.csv"))
            frames = int(curve["frames"].iloc[-1]) if len(curve) else 0
            tasks |= {about["task"]: {"frames": frames, "commit": about["commit"], "command": about["command"]}}
            before |= {"recipe": about["recipe"], "seed": about["seed"]}
        if tasks:
            write_config(target, before | {"tasks": tasks})
            print(f"collected {group.name}: {', '.join(tasks)}")


def _put(file: Path, task: str, rows: pd.DataFrame) -> None:
    """Put a task's rows into a table of several tasks, in the place of those that it has there; sorted by task."""
    before = pd.read_csv(file) if file.is_file() else pd.DataFrame()
    together = pd.concat([before[before["game"] != task] if len(before) else before, rows.assign(game=task)])
    write_compressed(file, together.sort_values("game", kind="stable").to_csv(index=False))


def main(study: Study, about: str | None, folder: str, arguments: Sequence[str] | None = None) -> int:
    """The command line of a study: trains or collects.

    Args:
        study: what is compared.
        about: the text of ``--help``.
        folder: default of ``--train_dir``.
        arguments: of the command line; None for the process's own.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in recipe_names(study.recipes) if not name.endswith("common")]
    groups = ", ".join(study.groups)
    parser.add_argument("--recipes", default=study.first[0], help=f"of {', '.join(known)} (default: %(default)s)")
    parser.add_argument("--tasks", default=study.first[1], help=f"names, or {groups} (default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="comma-separated (default: %(default)s)")
    parser.add_argument("--frames", type=float, default=study.frames, help="of each run (default: %(default).0f)")
    parser.add_argument("--seconds", type=float, default=1e9, help="of all runs together (default: no bound)")
    parser.add_argument("--gpus", type=int, default=None, help="default: all there are; without any, the CPU")
    parser.add_argument("--per_gpu", type=int, default=1, help="runs at a time on each GPU (default: %(default)s)")
    parser.add_argument("--train_dir", type=Path, default=Path("train_dir") / folder, help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="only copy the results")
    parser.add_argument("--runs", type=Path, help="where --collect puts them (default: runs/)")
    parser.add_argument("flags", nargs="*", metavar="-- --FLAG=VALUE", help="more flags of train_rl.py, after --")
    args = parser.parse_args(arguments)
    args.train_dir = args.train_dir.absolute()
    if args.collect:
        collect(study if args.runs is None else replace(study, runs=args.runs), args.train_dir)
        return 0
    if args.runs is not None:
        parser.error("--runs has no effect without --collect")
    if args.per_gpu < 1:
        parser.error(f"--per_gpu is {args.per_gpu}, expected at least 1")
    try:
        named = study.jobs(args.recipes, args.tasks, args.seeds)
    except ValueError as error:
        parser.error(str(error))
    until = time.monotonic() + args.seconds
    at = places.places(visible_gpus()[: args.gpus], args.per_gpu)
    places.work_through(named, at, lambda job, place: train(study, job, place, args, until), until)
    return 0
