"""Frames a second of training by the number of processes (ranks) that torchrun starts, each on a GPU of its own.

Each number trains for ``--seconds``, one after the other, for ``--rounds`` rounds; the rate is that of all ranks'
frames over the last ``--last`` seconds of curves.csv. Fewer ranks than the largest number get fewer of the machine's
cores, so that each GPU has as many in all runs.

    python benchmarks/ranks.py --ranks 1,2 --json experiments/performance/ranks.json

Flags that are not the benchmark's go to ``train_rl.py``, as ``--device=cpu`` for a trial without GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ["--preset=six_games", "--seed=1", "--experiment_summaries_interval=3"]
"""378 games a rank."""


def train(ranks: int, cores: list[int], seconds: int, last: float, flags: list[str]) -> dict[str, Any]:
    """Train once on some cores; frames a second over the last seconds, and the last progress line."""
    with tempfile.TemporaryDirectory() as folder:
        starter = [sys.executable]
        if ranks > 1:
            starter += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        command = [
            *(*starter, str(ROOT / "train_rl.py"), *FLAGS, *flags, f"--train_for_seconds={seconds}"),
            *(f"--train_dir={folder}", "--experiment=benchmark"),
        ]
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)  # which the processes inherit
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        finally:
            os.sched_setaffinity(0, everywhere)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        curves = pd.read_csv(Path(folder) / "benchmark" / "curves.csv")
    points: Any = curves.groupby("seconds")["frames"].max()
    end = points.index[-1]
    late = points[(points.index >= end - last) & (points > 0)]
    if len(late) < 3:
        raise SystemExit(f"{ranks} ranks: too short to measure after {seconds} s: give more --seconds")
    lines = re.findall(r"^.* frames/s, .*$", done.stdout, re.MULTILINE)
    return {
        "frames_per_second": float((late.iloc[-1] - late.iloc[0]) / (end - late.index[0])),
        "measured_seconds": float(end - late.index[0]),
        "start_seconds": float(points[points > 0].index[0]),
        "frames": int(points.iloc[-1]),
        "progress": lines[-1] if lines else "",
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="1,2", help="numbers of ranks, comma-separated (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=90, help="of training, start included (default: %(default)s)")
    parser.add_argument("--last", type=float, default=30, help="seconds that are measured (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="times that each number trains (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args, flags = parser.parse_known_args(arguments)
    numbers = [int(number) for number in args.ranks.split(",")]
    if min(numbers) < 1 or args.rounds < 1:
        parser.error(f"--ranks is {args.ranks} and --rounds {args.rounds}, expected at least 1")
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // max(numbers))
    cuda = torch.cuda.is_available()
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": {
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
            "cores_per_rank": share,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "flags": [*FLAGS, *flags],
        "runs": {number: [] for number in numbers},
    }
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()), flush=True)
    for _ in range(args.rounds):
        for number in numbers:
            run = train(number, cores[: share * number], args.seconds, args.last, flags)
            report["runs"][number].append(run)
            rate, over, first = (run[name] for name in ("frames_per_second", "measured_seconds", "start_seconds"))
            print(
                f"  {number} ranks {rate:>10,.0f} frames/s over {over:.0f} s, first row with frames after {first:.0f} s"
            )
            print(f"    {run['progress']}", flush=True)
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(report, indent=1) + "\n")
    base = statistics.median(run["frames_per_second"] for run in report["runs"][numbers[0]])
    print(f"\n{'ranks':<6}{'frames/s':>10}{'min-max':>20}   ratio to {numbers[0]}")
    for number, runs in report["runs"].items():
        rates = [run["frames_per_second"] for run in runs]
        spread = f"{min(rates):,.0f}-{max(rates):,.0f}"
        print(f"{number:<6}{statistics.median(rates):>10,.0f}{spread:>20}   {statistics.median(rates) / base:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
