"""Training throughput by core, in frames a second: the same settings for each, one after the other.

Each core is checked first: outputs, final state and gradients of the fast path in float32 against the naive ops in
float64. Then ``train_rl.py`` trains for ``--seconds`` with each core in turn, for ``--rounds`` rounds. The rate is the
slope of frames over time in curves.csv after the first frames; the time before (processes, compilation, simulators) is
reported as the start.

The committed tables were made with:

    python benchmarks/training.py --cores srwm,lstm --json experiments/performance/training.json
    python benchmarks/training.py --cores srwm,lstm --batch_size=1536
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.cores import CORES, make_core

TRAIN = Path(__file__).resolve().parents[1] / "train_rl.py"
TOLERANCE = 1e-3
"""Largest relative error to float64 in the check; float32 over 32 steps of two layers has about 1e-5."""


def check(core: str, device: str) -> float:
    """Largest relative error of a core's outputs, final state and weights' gradients to float64 on the naive ops."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"input_size": 257, "rollout_length": 20}
    fast = make_core(core, **settings).to(device)
    exact = make_core(core, **settings, backend="naive").to(device, torch.float64)
    exact.load_state_dict(fast.state_dict())
    x = torch.randn(8, 33, settings["input_size"], device=device)
    state = torch.randn(8, fast.state_size, device=device) * 0.1
    if core == "srwm_no_carry":
        state[:, -1] = 7  # its last entry counts steps
    resets = torch.rand(8, 33, device=device) < 0.05
    results = []
    for module, dtype in ((fast, torch.float32), (exact, torch.float64)):
        out, final = module(x.to(dtype), state.to(dtype), resets)
        out.square().sum().backward()
        results.append([out, final, *(p.grad for p in module.parameters() if p.grad is not None)])
    errors = [
        ((got.double() - true).norm() / true.norm().clamp(min=1e-12)).item()
        for got, true in zip(*results, strict=True)
        if true.numel()
    ]
    if not max(errors) <= TOLERANCE:  # NaN fails as well
        raise SystemExit(f"{core}: relative error {max(errors):.1e} to float64, allowed {TOLERANCE:.0e}")
    return max(errors)


def train(core: str, seconds: int, flags: list[str]) -> dict[str, Any]:
    """Train once in a temporary folder.

    Returns frames a second after the start, seconds of the start, frames in all, and Sample Factory's profile of each
    process.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, str(TRAIN), "--preset=fast", f"--core={core}", f"--train_for_seconds={seconds}",
            f"--train_dir={folder}", "--experiment=benchmark", "--seed=1", "--experiment_summaries_interval=5", *flags,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        curves = pd.read_csv(Path(folder) / "benchmark" / "curves.csv")
        log = (Path(folder) / "benchmark" / "sf_log.txt").read_text().splitlines()
    points: Any = curves.groupby("seconds")["frames"].max()  # a Series of numbers by seconds; pandas declares less
    under_way = points[points > 0]
    if len(under_way) < 3:
        raise SystemExit(f"{core}: too short to measure after {seconds} s: give more --seconds")
    # The first point with frames covers an unknown part of its interval, so the slope begins at the next.
    first, last = under_way.index[1], under_way.index[-1]
    return {
        "frames_per_second": float((under_way[last] - under_way[first]) / (last - first)),
        "measured_seconds": float(last - first),
        "start_seconds": float(under_way.index[0]),
        "frames": int(under_way.iloc[-1]),
        "profile": profile(log),
    }


def profile(log: list[str]) -> dict[str, dict[str, float]]:
    """Seconds by process and activity, from the tables at the end of Sample Factory's log."""
    seconds: dict[str, dict[str, float]] = {}
    process = None
    for line in log:
        if heading := re.search(r"(\w+ ?\S*) profile tree view", line):
            process = heading[1]
            seconds[process] = {}
        elif process and (parts := re.findall(r"(\w+): ([\d.]+)(?:, |$)", line)) and not line.startswith("["):
            seconds[process].update({name: float(value) for name, value in parts})
        else:
            process = None
    return seconds


def machine() -> dict[str, Any]:
    """GPU, CPU cores and versions."""
    cuda = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The command line; flags that are not the benchmark's go to ``train_rl.py``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", default="srwm,lstm", help=f"of {', '.join(CORES)} (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="of training, start included (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each core trains (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args, flags = parser.parse_known_args(arguments)
    args.cores = args.cores.split(",")
    if wrong := [core for core in args.cores if core not in CORES]:
        parser.error(f"--cores has {wrong[0]!r}, allowed: {', '.join(CORES)}")
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}, expected at least 1")
    return args, flags


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print a table, write JSON; returns the exit status."""
    args, flags = parse(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "flags": flags,
        "relative_error": {core: check(core, device) for core in args.cores},
        "runs": {core: [] for core in args.cores},
    }
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for _ in range(args.rounds):
        for core in args.cores:
            run = train(core, args.seconds, flags)
            report["runs"][core].append(run)
            print(f"  {core:<16}{run['frames_per_second']:>10,.0f} frames/s over {run['measured_seconds']:.0f} s "
                  f"after a start of {run['start_seconds']:.0f} s", flush=True)  # fmt: skip
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(report, indent=1) + "\n")
    rates = {core: [run["frames_per_second"] for run in runs] for core, runs in report["runs"].items()}
    base = args.cores[-1]
    print(f"\n{'core':<16}{'frames/s':>10}{'min-max':>20}   ratio to {base}")
    for core, values in rates.items():
        median = statistics.median(values)
        print(f"{core:<16}{median:>10,.0f}{f'{min(values):,.0f}-{max(values):,.0f}':>20}   "
              f"{median / statistics.median(rates[base]):.2f}")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
