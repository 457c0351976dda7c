"""Trains and evaluates the classifiers of docs/results/fewshot.md on real images, several at once on each GPU.

    python -m experiments.fewshot.train --data_dir DIR --hours 2
    python -m experiments.fewshot.train --data_dir DIR --updates 12000 omniglot_1shot omniglot_1shot_delta
    python -m experiments.fewshot.train --collect

Each run is ``fewshot train`` and ``fewshot eval`` with the settings of a recipe (``recipes/NAME.yaml``). It ends after
so many updates or hours in all, whichever comes first, and so does its schedule. Runs that are there already go on
where they stopped, for as long again. The networks are small, so that several share a GPU. ``--collect`` copies what
the page is made from into ``runs/``, and the models that are kept, in half precision.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from experiments.gpus import visible_gpus
from experiments.recipes import recipe_names, resolve
from experiments.runs import write_config
from srwm_agents.fewshot.classifier import load_classifier, save_classifier

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPES, RUNS = HERE / "recipes", HERE / "runs"
FEWSHOT = [sys.executable, "-m", "srwm_agents", "fewshot"]
EVALUATION_SECONDS = 60
"""Kept for 10,000 episodes of evaluation, out of each run's time."""

KEPT = {"omniglot_1shot": "omniglot-1shot", "mini_1shot": "mini-1shot", "mini_5shot": "mini-5shot"}
"""Whose models are kept in ``agents/fewshot``, and their names there: the Conv-4 ones with an SRWM."""


def seconds_so_far(folder: Path) -> float:
    """What a run has been trained for already."""
    curves = folder / "curves.csv"
    return float(pd.read_csv(curves)["seconds"].iloc[-1]) if curves.is_file() else 0.0


def train_and_evaluate(name: str, gpu: str | None, args: argparse.Namespace) -> bool:
    """Both, as processes of their own; their output goes to a log in the experiment's folder. False if one failed."""
    folder = args.train_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    where = [f"--train_dir={args.train_dir}", f"--data_dir={args.data_dir}"]
    seconds = max(10.0, 3600 * args.hours - EVALUATION_SECONDS) + seconds_so_far(folder)
    limits = {"train_steps": args.updates, "train_seconds": round(seconds)}
    recipe = resolve(name, RECIPES)
    flags = {"preset": recipe.preset, **recipe.settings, **limits, "experiment": name}
    if gpu is None:
        flags |= {"cuda_graph": False, "device": "cpu"}
    commands = [
        [*FEWSHOT, "train", *(f"--{key}={value}" for key, value in flags.items()), *where],
        [*FEWSHOT, "eval", f"--experiment={name}", "--split=val", *where],
    ]
    environment = os.environ | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    with (folder / "log.txt").open("a") as log:
        for command in commands:
            print(f"{name}{'' if gpu is None else f' on GPU {gpu}'}: {command[4]}", flush=True)
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT).returncode
            if status:
                print(f"{name}: {command[4]} ended with status {status}, see {folder / 'log.txt'}", flush=True)
                return False
    return True


def collect(train_dir: Path) -> None:
    """Copy settings, curves and evaluations of all runs, and the models that are kept."""
    for name in recipe_names(RECIPES):
        source, target = train_dir / name, RUNS / name
        reports = sorted(source.glob("evaluation/eval_*.json"))
        if not reports:
            continue
        target.mkdir(parents=True, exist_ok=True)
        settings = json.loads((source / "settings.json").read_text())
        trained_as = KEPT.get(name, name)
        write_config(target, {"recipe": name, "seed": settings["seed"], "trained_as": trained_as, "settings": settings})
        shutil.copy(source / "curves.csv", target)
        evaluations = [json.loads(file.read_text()) for file in reports]
        (target / "summary.json").write_text(json.dumps(evaluations, indent=1) + "\n")
        if name in KEPT:
            save_classifier(load_classifier(source / "agent_best"), ROOT / "agents" / "fewshot" / KEPT[name], half=True)
        print(f"collected {name}")


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"default: all of {', '.join(recipe_names(RECIPES))}")
    parser.add_argument(
        "--hours", type=float, default=2.0, help="of each run, evaluation included (default: %(default)s)"
    )
    parser.add_argument("--updates", type=int, default=10_000_000, help="of each run (default: time ends training)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where the data sets lie (default: data)")
    parser.add_argument("--train_dir", type=Path, default=Path("train_dir"), help="default: train_dir")
    parser.add_argument("--collect", action="store_true", help="only copy the results")
    args = parser.parse_args(arguments)
    if wrong := [name for name in args.runs if name not in recipe_names(RECIPES)]:
        parser.error(f"unknown run {wrong[0]!r}, allowed: {', '.join(recipe_names(RECIPES))}")
    if args.updates < 1:
        parser.error(f"--updates is {args.updates}, expected at least 1")
    if args.hours <= 0:
        parser.error(f"--hours is {args.hours}, expected more than 0")
    args.data_dir, args.train_dir = args.data_dir.absolute(), args.train_dir.absolute()
    if args.collect:
        collect(args.train_dir)
        return 0
    names = args.runs or recipe_names(RECIPES)
    # Images are decoded once, before runs would all do it.
    for dataset in sorted({"omniglot" if name.startswith("omniglot") else "mini-imagenet" for name in names}):
        subprocess.run(
            [*FEWSHOT, "data", "prepare", f"--data_dir={args.data_dir}", f"--dataset={dataset}", "--split=train,val"],
            cwd=ROOT,
            check=True,
        )
    gpus = visible_gpus() or [None]
    with ThreadPoolExecutor(len(names)) as pool:
        done = pool.map(lambda i: train_and_evaluate(names[i], gpus[i % len(gpus)], args), range(len(names)))
    return 0 if all(done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
