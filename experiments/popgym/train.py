"""Trains memories on POPGym's tasks, spread over GPUs and cores, and collects the scores.

    python -m experiments.popgym.train --recipes gru,srwm --tasks check --seeds 1,2,3 --per_gpu 4
    python -m experiments.popgym.train --recipes srwm --tasks RepeatPreviousHard,bandits --seconds 3000
    python -m experiments.popgym.train --collect
    python -m experiments.popgym.table

A run is ``train_rl.py`` with preset ``popgym`` and the settings of a recipe (``recipes/NAME.yaml``) on one task with
one seed, in TRAIN_DIR/RECIPE_sSEED/TASK. It goes on from its checkpoint if there is one, so that the same command
finishes what was stopped. Tasks come first: every recipe has the first task before any has the second. Each place on a
GPU takes the next run when it has finished one. After ``--seconds`` none is begun, and those under way are stopped,
saved. ``--collect`` copies settings and curves into ``runs/RECIPE_sSEED/``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments import places
from experiments.gpus import visible_gpus
from experiments.popgym.tasks import env_of, tasks_of
from experiments.recipes import Resolved, read_yaml, recipe_names, resolve
from experiments.runs import CURVES, write_compressed, write_config

FOLDER = Path(__file__).parent
RECIPES, RUNS = FOLDER / "recipes", FOLDER / "runs"
DRAFT = "run.yaml"
"""What a run is, in its experiment's folder, for ``--collect``."""


@dataclass(frozen=True)
class Job:
    """One task with one memory and one seed."""

    recipe: str
    resolved: Resolved
    task: str
    seed: int

    @property
    def group(self) -> str:
        """The folder of all tasks with this memory and seed."""
        return f"{self.recipe}_s{self.seed}"

    def flags(self, frames: int) -> list[str]:
        """Of ``train_rl.py``, without the place of the experiment."""
        settings: dict[str, Any] = {"seed": self.seed, "train_for_env_steps": frames, "env": env_of(self.task)}
        settings |= self.resolved.settings
        return [f"--preset={self.resolved.preset}", *(f"--{name}={value}" for name, value in settings.items())]


def jobs(recipes: str, tasks: str, seeds: str) -> list[Job]:
    """The runs that a command line names, task by task.

    Raises:
        ValueError: an unknown recipe or task, or a seed that is no number.
    """
    if not re.fullmatch(r"\d+(,\d+)*", seeds):
        raise ValueError(f"--seeds is {seeds!r}, expected numbers, comma-separated")
    resolved = {name.strip(): resolve(name.strip(), RECIPES) for name in recipes.split(",")}
    return [
        Job(recipe, settings, task, int(seed))
        for seed in seeds.split(",")
        for task in tasks_of(tasks)
        for recipe, settings in resolved.items()
    ]


def train(job: Job, place: places.Place, args: argparse.Namespace, until: float) -> None:
    """Train one run; what it prints goes to a log beside it."""
    folder = args.train_dir / job.group / job.task
    folder.mkdir(parents=True, exist_ok=True)
    flags = [*job.flags(int(args.frames)), *args.flags]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=places.ROOT, capture_output=True, text=True, check=False
    )
    draft = {"recipe": job.recipe, "task": job.task, "seed": job.seed, "command": " ".join(["train_rl.py", *flags])}
    (folder / DRAFT).write_text(yaml.safe_dump(draft | {"commit": commit.stdout.strip() or None}, sort_keys=False))
    where = [f"--train_dir={folder.parent}", f"--experiment={job.task}"]
    began = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        status = places.run([sys.executable, "train_rl.py", *where, *flags], place, log, until)
    print(f"{job.group} {job.task}: status {status}, {time.monotonic() - began:.0f} s", flush=True)


def collect(train_dir: Path) -> None:
    """Copy settings and curves of all runs that there are; tasks that were collected earlier stay as they are."""
    for group in sorted({draft.parent.parent for draft in train_dir.glob(f"*/*/{DRAFT}")}):
        target = RUNS / group.name
        target.mkdir(parents=True, exist_ok=True)
        before = read_yaml(target / "config.yaml") if (target / "config.yaml").is_file() else {}
        curves = pd.read_csv(target / CURVES) if (target / CURVES).is_file() else pd.DataFrame()
        tasks = before.get("tasks", {})
        for draft in sorted(group.glob(f"*/{DRAFT}")):
            if not (draft.parent / "curves.csv").is_file():
                continue
            about, curve = read_yaml(draft), pd.read_csv(draft.parent / "curves.csv").drop(columns="normalised_score")
            curve["game"] = about["task"]
            curves = pd.concat([curves[curves["game"] != about["task"]] if len(curves) else curves, curve])
            frames = int(curve["frames"].iloc[-1]) if len(curve) else 0
            tasks |= {about["task"]: {"frames": frames, "commit": about["commit"], "command": about["command"]}}
            before |= {"recipe": about["recipe"], "seed": about["seed"]}
        if tasks:
            write_compressed(target / CURVES, curves.to_csv(index=False))
            write_config(target, before | {"tasks": tasks})
            print(f"collected {group.name}: {', '.join(tasks)}")


def main(arguments: list[str] | None = None) -> int:
    """Train or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [name for name in recipe_names(RECIPES) if name != "common"]
    parser.add_argument("--recipes", default="srwm,gru", help=f"of {', '.join(known)} (default: %(default)s)")
    parser.add_argument("--tasks", default="check", help="names, or check, twelve, bandits, all (default: %(default)s)")
    parser.add_argument("--seeds", default="1", help="comma-separated (default: %(default)s)")
    parser.add_argument("--frames", type=float, default=15e6, help="of each run (default: %(default).0f)")
    parser.add_argument("--seconds", type=float, default=1e9, help="of all runs together (default: no bound)")
    parser.add_argument("--gpus", type=int, default=None, help="default: all there are; without any, the CPU")
    parser.add_argument("--per_gpu", type=int, default=1, help="runs at a time on each GPU (default: %(default)s)")
    parser.add_argument("--train_dir", type=Path, default=Path("train_dir/popgym"), help="default: %(default)s")
    parser.add_argument("--collect", action="store_true", help="only copy the results")
    parser.add_argument("flags", nargs="*", metavar="-- --FLAG=VALUE", help="more flags of train_rl.py, after --")
    args = parser.parse_args(arguments)
    args.train_dir = args.train_dir.absolute()
    if args.collect:
        collect(args.train_dir)
        return 0
    if args.per_gpu < 1:
        parser.error(f"--per_gpu is {args.per_gpu}, expected at least 1")
    try:
        named = jobs(args.recipes, args.tasks, args.seeds)
    except ValueError as error:
        parser.error(str(error))
    until = time.monotonic() + args.seconds
    at = places.places(visible_gpus()[: args.gpus], args.per_gpu)
    places.work_through(named, at, lambda job, place: train(job, place, args, until), until)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
