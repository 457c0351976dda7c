"""Where a turn of the acting thread goes while training runs: milliseconds of the host by part, and frames a second.

A turn is one step of one vector environment. Parts are nested: ``observe`` has the simulator, the uploads and the
bookkeeping in it. Timers are wrapped around the methods themselves, and cost the turn some microseconds. The first
``--skip`` seconds (start, compilation, captures) are left out.

The last row of the table in docs/performance.md was measured with

    python benchmarks/actor_thread.py --seconds 50 --skip 36 --preset six_games --num_workers 3 --worker_num_splits 1 \
        --num_envs_per_worker 126 --batch_size 2016 --num_batches_per_epoch 2 --max_pending_iterations 0

and the others, of earlier engines, with timers around the same methods.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.envs.procgen import ProcgenVectorEnv
from srwm_agents.graphs import Graphed
from srwm_agents.integrations.sample_factory.in_process.acting import ActingWorker
from srwm_agents.integrations.sample_factory.in_process.vector_runner import VectorRunner
from srwm_agents.integrations.sample_factory.in_process.weights import WeightsHandover
from srwm_agents.integrations.sample_factory.training import train

PARTS = {
    "turn": (ActingWorker, "_turn"),
    "take weights": (WeightsHandover, "take"),
    "begin a rollout": (VectorRunner, "acquire_buffer"),
    "act: launches": (VectorRunner, "act"),
    "send: wait for the actions, start the simulator": (VectorRunner, "send"),
    "observe": (VectorRunner, "observe"),
    "observe: environment": (ProcgenVectorEnv, "step_wait"),
    "observe: environment: uploads": (ProcgenVectorEnv, "_observation"),
    "launches of graphs, both threads": (Graphed, "__call__"),
}


class Timers:
    """Seconds and calls by part."""

    def __init__(self, skip: float) -> None:
        """Time before ``skip`` seconds from now is left out."""
        self.begin = time.perf_counter() + skip
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def add(self, name: str, began: float) -> None:
        """A call of a part ends."""
        ended = time.perf_counter()
        if began > self.begin:
            self.seconds[name] = self.seconds.get(name, 0.0) + ended - began
            self.calls[name] = self.calls.get(name, 0) + 1

    def wrap(self, owner: type, method: str, name: str) -> None:
        """Time a method of a class."""
        function = getattr(owner, method)

        @functools.wraps(function)  # signals find their receivers by name
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(name, began)

        setattr(owner, method, timed)

    def wrap_simulators(self) -> None:
        """Time the wait for each simulator, which is an object of another package."""
        make = ProcgenVectorEnv._start
        timers = self

        def start(self: ProcgenVectorEnv) -> Any:
            simulator = make(self)
            observe = simulator.observe

            def timed() -> Any:
                began = time.perf_counter()
                try:
                    return observe()
                finally:
                    timers.add("observe: environment: wait for the simulator", began)

            simulator.observe = timed
            return simulator

        ProcgenVectorEnv._start = start  # type: ignore[method-assign]


def main(arguments: list[str] | None = None) -> int:
    """Train, print a table, write JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=55, help="of training, start included (default: %(default)s)")
    parser.add_argument("--skip", type=float, default=40, help="seconds that are left out (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args, flags = parser.parse_known_args(arguments)
    timers = Timers(args.skip)
    for name, (owner, method) in PARTS.items():
        timers.wrap(owner, method, name)
    timers.wrap_simulators()
    with tempfile.TemporaryDirectory() as folder:
        where = [f"--train_dir={folder}", "--experiment=benchmark", "--seed=1", "--in_process=True"]
        watched = [f"--train_for_seconds={args.seconds}", "--experiment_summaries_interval=3"]
        status = train([*flags, *where, *watched]).exit_status
        if status != 0:
            return status
        curves = pd.read_csv(Path(folder) / "benchmark" / "curves.csv")
    turns = timers.calls.get("turn", 0)
    points: Any = curves[curves["seconds"] > args.skip].groupby("seconds")["frames"].max()
    if not turns or len(points) < 2:
        raise SystemExit(f"too short to measure after {args.skip:.0f} s: give more --seconds")
    rate = (points.iloc[-1] - points.iloc[0]) / (points.index[-1] - points.index[0])
    print(f"\n{'part':<50}{'ms a call':>10}{'ms a turn':>10}{'calls':>9}")
    rows = {}
    for name in sorted(timers.seconds):
        seconds, calls = timers.seconds[name], timers.calls[name]
        rows[name] = {"ms_a_call": 1e3 * seconds / calls, "ms_a_turn": 1e3 * seconds / turns, "calls": calls}
        print(f"{name:<50}{rows[name]['ms_a_call']:>10.3f}{rows[name]['ms_a_turn']:>10.3f}{calls:>9,}")
    print(f"{rate:,.0f} frames/s")
    if args.json:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        machine = {"gpu": gpu, "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__}
        report = {"flags": flags, "machine": machine, "frames_per_second": float(rate), "parts": rows}
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
