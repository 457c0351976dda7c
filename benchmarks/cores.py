"""Every core at one width: parameters, numbers of state, and CPU time beside the GRU core's, training and acting.

All cores run in turn, round after round; a ratio is the median over rounds of a core's time by the GRU core's in the
same round, which bears other work on the machine better than a ratio of medians. On one thread times are the process's
on the processor. In training one episode in sixteen ends within the rollout, as resets; a GRU and an LSTM then run
step by step, on a CPU.

The exact command behind the committed table:

    python benchmarks/cores.py --json experiments/performance/cores.json
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

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.cores import CORES, Core, make_core

WIDTH = 128
WORK = {"train B64 T32": (64, 32, 1), "act B1": (1, 1, 20), "act B64": (64, 1, 5)}
"""Batch, steps, and calls in a round."""
REFERENCE = "gru"


def runner(core: Core, batch: int, steps: int) -> Callable[[], object]:
    """One update's forward and backward pass, or, of a single step, one of acting."""
    x, state = torch.randn(batch, steps, core.input_size), core.initial_state(batch)
    if steps == 1:
        return torch.no_grad()(lambda: core(x, state))
    resets = torch.zeros(batch, steps, dtype=torch.bool)
    resets[::16, steps // 2] = True
    leaves, upstream = [*core.parameters()], torch.randn(batch, steps, core.output_size)
    return lambda: torch.autograd.grad(core(x, state, resets)[0], leaves, upstream)


def measure(cores: dict[str, Core], work: str, rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Milliseconds a call (median, min, max) and the median ratio to the reference's, by core."""
    batch, steps, calls = WORK[work]
    runs = {name: runner(core, batch, steps) for name, core in cores.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for n in range(rounds):
        for name in runs if n % 2 else reversed(runs):
            began = clock()
            for _ in range(calls):
                runs[name]()
            times[name].append(1e3 * (clock() - began) / calls)
    return {
        name: {
            "median": statistics.median(ms),
            "min": min(ms),
            "max": max(ms),
            "ratio": statistics.median(a / b for a, b in zip(ms, times[REFERENCE], strict=True)),
        }
        for name, ms in times.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind of work (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected at least 1")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # Introspective nets are meant for small sizes.
    names = [name for name in CORES if name != "introspective"]
    cores = {name: make_core(name, input_size=WIDTH, hidden_size=WIDTH, num_layers=1) for name in names}
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "threads": args.threads,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "parameters": {name: sum(p.numel() for p in core.parameters()) for name, core in cores.items()},
        "state_size": {name: core.state_size for name, core in cores.items()},
    }
    clock = time.process_time if args.threads == 1 else time.perf_counter
    report["results"] = {work: measure(cores, work, args.rounds, clock) for work in WORK}
    print(f"{'core':<16}{'parameters':>11}{'state':>7}" + "".join(f"{work:>18}, ms (by {REFERENCE})" for work in WORK))
    for name in cores:
        cells = [f"{ms[name]['median']:>20.2f} ({ms[name]['ratio']:.2f})    " for ms in report["results"].values()]
        print(f"{name:<16}{report['parameters'][name]:>11,}{report['state_size'][name]:>7,}" + "".join(cells))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
