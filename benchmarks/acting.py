"""Latency of one acting step, batch 1, on one CPU thread: the paper's model with each core, and its parts.

The committed table was made with:

    python benchmarks/acting.py --json experiments/performance/acting.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.cores import CORES


def milliseconds(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median, min and max time of ``repeats`` calls, after ten calls as a warm-up."""
    for _ in range(10):
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}


def measure(core: str, repeats: int) -> dict[str, dict[str, float]]:
    """Times of a whole step, from a NumPy frame to a NumPy action, and of its encoder and core alone."""
    torch.manual_seed(0)
    agent = Agent(AgentConfig(core=core, core_settings={}, num_actions=15)).eval()
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8)
    observation = {"obs": frame, "last_reward": np.zeros((1, 1), np.float32)}
    state = agent.initial_state(1)
    features = torch.rand(1, 1, agent.encoder.output_size)
    encoder = agent.encoder.image
    assert encoder is not None

    def act() -> None:
        nonlocal state
        _, state = agent.act(observation, state)

    with torch.no_grad():
        return {
            "step": milliseconds(act, repeats),
            "encoder": milliseconds(lambda: encoder(torch.from_numpy(frame)), repeats),
            "core": milliseconds(lambda: agent.core(features, state, None), repeats),
        }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in CORES if name != "introspective"]  # it is meant for small sizes
    parser.add_argument("--cores", default=",".join(names), help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=300, help="timed calls (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    cores = args.cores.split(",")
    if wrong := [core for core in cores if core not in CORES]:
        parser.error(f"--cores has {wrong[0]!r}, allowed: {', '.join(CORES)}")
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}, expected at least 1")
    torch.set_num_threads(1)
    machine = {"cpu": platform.machine(), "python": platform.python_version(), "torch": torch.__version__}
    report: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "machine": machine, "ms": {}}
    print(f"{'core':<16}{'step, ms':>10}{'min-max':>16}{'encoder':>10}{'core':>8}")
    for core in cores:
        ms = report["ms"][core] = measure(core, args.repeats)
        step = ms["step"]
        print(f"{core:<16}{step['median']:>10.2f}{step['min']:>9.2f}-{step['max']:<6.2f}"
              f"{ms['encoder']['median']:>10.2f}{ms['core']['median']:>8.2f}", flush=True)  # fmt: skip
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
