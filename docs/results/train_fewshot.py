"""Trains and evaluates the classifiers of fewshot.md on real images, several at once on the GPUs that there are.

    python docs/results/train_fewshot.py --data_dir DIR --hours 2
    python docs/results/train_fewshot.py --data_dir DIR --updates 12000 omniglot-1shot omniglot-1shot_delta
    python docs/results/train_fewshot.py --collect

Each run is ``fewshot train`` and ``fewshot eval`` with the flags below. It ends after so many updates or hours in all,
whichever comes first, and so does its schedule. Runs that are there already go on where they stopped, for as long
again. The networks are small, so that several share a GPU. ``--collect`` copies what fewshot.md is made from into
``fewshot/``, and the models that are kept, in half precision.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from srwm_agents.fewshot.classifier import load_classifier, save_classifier

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FEWSHOT = [sys.executable, "-m", "srwm_agents", "fewshot"]
EVALUATION_SECONDS = 60
"""Kept for 10,000 episodes of evaluation, out of each run's time."""

Flags = dict[str, object]

COMMON: Flags = {
    "mixed_precision": "bf16",
    "cuda_graph": True,
    "lr_schedule": "cosine",
    "learning_rate": 1e-3,
    "warmup_steps": 500,
    "average_decay": 0.999,
    "validation_episodes": 2000,
    "save_every_sec": 60,
}
OMNIGLOT: Flags = {
    "preset": "omniglot-1shot",
    "batch_size": 128,
    "queries": 10,
    "augment_shift": 2,
    "auxiliary_weight": 0.2,
    "label_scale": 2,
}
MINI: Flags = {
    "encoder_channels": 64,
    "vision_dropout": 0.0,
    "queries": 15,
    "augment_shift": 0,
    "augment_crop": 0.4,
    "augment_colour": 0.3,
    "auxiliary_weight": 1.0,
    "weight_decay": 0.01,
    "label_scale": 10,
    "validate_every": 500,
    "ff_size": 1024,
}
MINI_1: Flags = {"preset": "mini-1shot", **MINI, "batch_size": 64}
MINI_5: Flags = {"preset": "mini-5shot", **MINI, "batch_size": 32}
RESNET: Flags = {
    **MINI_5,
    "encoder": "resnet12",
    "encoder_channels": 32,
    "vision_dropout": 0.1,
    "queries": 10,
    "weight_decay": 0.05,
    "label_scale": 5,
    "validate_every": 250,
}
TASKS = {"omniglot-1shot": OMNIGLOT, "mini-1shot": MINI_1, "mini-5shot": MINI_5}
BESIDES: dict[str, Flags] = {"lstm": {"input_norm": False}}
"""An LSTM had no layer norm before it yet when these runs were made."""
RUNS: dict[str, Flags] = {
    **{name: {**flags, "core": "srwm"} for name, flags in TASKS.items()},
    "mini-5shot_resnet12": {**RESNET, "core": "srwm"},
    **{
        f"{name}_{core}": {**flags, "core": core, **BESIDES.get(core, {})}
        for name, flags in TASKS.items()
        for core in ("delta", "lstm", "fake_sr")
    },
}
KEPT = tuple(TASKS)
"""Whose models are kept in agents/fewshot: the Conv-4 ones with an SRWM."""


def seconds_so_far(folder: Path) -> float:
    """What a run has been trained for already."""
    curves = folder / "curves.csv"
    return float(pd.read_csv(curves)["seconds"].iloc[-1]) if curves.is_file() else 0.0


def visible_gpus() -> list[str]:
    """What this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [*map(str, range(torch.cuda.device_count()))]


def train_and_evaluate(name: str, gpu: str | None, args: argparse.Namespace) -> bool:
    """Both, as processes of their own; their output goes to a log in the experiment's folder. False if one failed."""
    folder = args.train_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    where = [f"--train_dir={args.train_dir}", f"--data_dir={args.data_dir}"]
    seconds = max(10.0, 3600 * args.hours - EVALUATION_SECONDS) + seconds_so_far(folder)
    limits = {"train_steps": args.updates, "train_seconds": round(seconds)}
    flags = {**COMMON, **RUNS[name], **limits, "experiment": name}
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
    for name in RUNS:
        source, target = train_dir / name, HERE / "fewshot" / name
        reports = sorted(source.glob("evaluation/eval_*.json"))
        if not reports:
            continue
        target.mkdir(parents=True, exist_ok=True)
        for file in (source / "settings.json", source / "curves.csv", *reports):
            shutil.copy(file, target)
        if name in KEPT:
            save_classifier(load_classifier(source / "agent_best"), ROOT / "agents" / "fewshot" / name, half=True)
        print(f"collected {name}")


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"default: all of {', '.join(RUNS)}")
    parser.add_argument(
        "--hours", type=float, default=2.0, help="of each run, evaluation included (default: %(default)s)"
    )
    parser.add_argument("--updates", type=int, default=10_000_000, help="of each run (default: time ends training)")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="where the data sets lie (default: data)")
    parser.add_argument("--train_dir", type=Path, default=Path("train_dir"), help="default: train_dir")
    parser.add_argument("--collect", action="store_true", help="only copy the results")
    args = parser.parse_args(arguments)
    if wrong := [name for name in args.runs if name not in RUNS]:
        parser.error(f"unknown run {wrong[0]!r}, allowed: {', '.join(RUNS)}")
    if args.updates < 1:
        parser.error(f"--updates is {args.updates}, expected at least 1")
    if args.hours <= 0:
        parser.error(f"--hours is {args.hours}, expected more than 0")
    args.data_dir, args.train_dir = args.data_dir.absolute(), args.train_dir.absolute()
    if args.collect:
        collect(args.train_dir)
        return 0
    names = args.runs or list(RUNS)
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
