"""Time and memory of the introspective net's two gradients, by sequence length and number of connections.

First the two are compared in float64. Then, with B sequences in float32, medians (min-max) over several runs of

- the time of a step of the forward gradient and of back-propagation through time, at several sequence lengths T;
- the same at several numbers of connections n, with the forward gradient's growth against n² log2 n;
- the memory of both: p and q, and what autograd keeps, each storage counted once.

Crossings, for each n: the T from which back-propagation keeps more memory than p and q; and the T from which it takes
longer than a step of the forward gradient, which matters where a gradient is needed after *every* step.

The committed numbers (docs/results/introspective.md) were made with:

    python benchmarks/introspective.py --json experiments/introspective/benchmark.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.introspective import Dynamics, Sequences, Wiring, forward_gradient, sequence_loss
from srwm_agents.introspective.gradients import bptt_bytes, forward_bytes
from srwm_agents.introspective.net import initial_weights

LENGTHS = "16,64,256,1024"
WIDTHS = "1,4,8,16,24,32,44"
RUNS = 9
TOLERANCE = 1e-9
"""Relative difference allowed between the two gradients in float64."""


def problem(
    wiring: Wiring, steps: int, batch: int, dtype: torch.dtype, device: str
) -> tuple[Dynamics, Tensor, Sequences]:
    """Make a net, its weights for each sequence, and random sequences with a target at every step."""
    generator = torch.Generator().manual_seed(0)
    weight = initial_weights(wiring, 1.0, generator).expand(batch, -1, -1)
    x = torch.randn(batch, steps, wiring.num_inputs, generator=generator)
    target = torch.rand(batch, steps, wiring.num_outputs, generator=generator)
    sequences = Sequences(
        x.to(device, dtype),
        target.to(device, dtype),
        torch.ones_like(target, dtype=torch.bool, device=device),
        torch.zeros(batch, steps, dtype=torch.bool, device=device),
    )
    return Dynamics(wiring).to(device, dtype), weight.to(device, dtype).contiguous(), sequences


def check(wiring: Wiring, batch: int, device: str) -> float:
    """Relative difference of the two gradients in float64; ends the program if it is too large."""
    dynamics, weight, sequences = problem(wiring, 12, batch, torch.float64, device)
    leaf = weight.clone().requires_grad_()
    (through_time,) = torch.autograd.grad(sequence_loss(dynamics, leaf, sequences, "bptt")[0].sum(), leaf)
    forward = forward_gradient(dynamics, weight, sequences).gradient
    error = ((forward - through_time).norm() / through_time.norm()).item()
    if not error <= TOLERANCE:  # NaN fails as well
        raise SystemExit(f"{wiring.num_connections} connections: the gradients differ by {error:.1e}")
    return error


def seconds(runs: dict[Any, Callable[[], object]], number: int, device: str) -> dict[Any, dict[str, float]]:
    """Median, min and max time of each; runs are interleaved, so that other load affects all alike."""
    times: dict[Any, list[float]] = {name: [] for name in runs}
    for turn in range(number + 1):
        for name, run in runs.items():
            if device != "cpu":
                torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            if device != "cpu":
                torch.cuda.synchronize()
            if turn > 0:  # the first is the warm-up
                times[name].append(time.perf_counter() - began)
    return {name: {"median": statistics.median(t), "min": min(t), "max": max(t)} for name, t in times.items()}


def both(wiring: Wiring, steps: int, args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Functions that compute a gradient over ``steps`` with each method; "forward" reuses p and q of the set-up."""
    dynamics, weight, sequences = problem(wiring, steps, args.batch_size, torch.float32, args.device)
    begun = forward_gradient(dynamics, weight, Sequences(*(part[:, :1] for part in sequences)))
    leaf = weight.clone().requires_grad_()

    def through_time() -> object:
        return torch.autograd.grad(sequence_loss(dynamics, leaf, sequences, "bptt")[0].sum(), leaf)

    return {
        "forward": lambda: forward_gradient(dynamics, weight, sequences, begun.state, begun.sensitivity),
        "bptt": through_time,
    }


def memory(wiring: Wiring, steps: int, args: argparse.Namespace) -> dict[str, int]:
    """Bytes of p and q, and of the tensors that autograd keeps."""
    dynamics, weight, sequences = problem(wiring, steps, args.batch_size, torch.float32, args.device)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = sequence_loss(dynamics, weight.clone().requires_grad_(), sequences, "bptt")[0]
    through_time = sum(kept.values())
    del loss
    p, q = forward_gradient(dynamics, weight, sequences).sensitivity
    return {"forward": 2 * p.nbytes + q.nbytes, "bptt": through_time}  # p: the old and the new one


def exponent(ns: list[int], times: list[float]) -> float:
    """The exponent a of the fit times ~ (n² log2 n)^a; 1 is expected."""
    return float(np.polyfit(np.log([n**2 * np.log2(n) for n in ns]), np.log(times), 1)[0])


def crossings(wiring: Wiring, row: dict[str, Any], args: argparse.Namespace) -> dict[str, float]:
    """The two lengths from which back-propagation through time costs more; see the module's docstring."""
    once, twice = memory(wiring, args.steps, args), memory(wiring, 2 * args.steps, args)
    return {
        "memory": once["forward"] / ((twice["bptt"] - once["bptt"]) / args.steps),
        "gradient_after_every_step": row["seconds"]["forward"]["median"] / row["seconds"]["bptt"]["median"],
    }


def machine(device: str) -> dict[str, Any]:
    """CPU, GPU, threads, load and versions."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        models = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        name = models[0] if models else name
    return {
        "cpu": name,
        "gpu": torch.cuda.get_device_name() if device != "cpu" else None,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--lengths", default=LENGTHS, help="time steps T, comma-separated, rising (default: %(default)s)")
    add("--widths", default=WIDTHS, help="inputs (as many outputs) of the nets that grow (default: %(default)s)")
    add("--batch_size", type=int, default=1, help="sequences (default: %(default)s)")
    add("--steps", type=int, default=8, help="time steps a run where n grows (default: %(default)s)")
    add("--runs", type=int, default=RUNS, help="runs of each measurement (default: %(default)s)")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    for name in ("lengths", "widths"):
        try:
            values = sorted({int(value) for value in getattr(args, name).split(",")})
            if len(values) < 2 or values[0] < 1:
                raise ValueError
        except ValueError:
            parser.error(f"--{name} is {getattr(args, name)!r}, expected at least two different numbers, like 8,32,128")
        setattr(args, name, values)
    for name in ("batch_size", "steps", "runs", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print tables, write JSON; returns the exit status."""
    args = parse(arguments)
    if args.device != "cpu" and not torch.cuda.is_available():
        print(f"benchmarks/introspective.py: --device is {args.device!r}, but there is no CUDA device", file=sys.stderr)
        return 1
    torch.set_num_threads(args.threads)
    small = Wiring(3, 1)
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(args.device),
        "batch_size": args.batch_size,
        "num_connections": small.num_connections,
        "relative_difference": check(small, args.batch_size, args.device),
        "lengths": [],
        "sizes": [],
    }
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    print(f"both gradients in float64 differ by {report['relative_difference']:.0e}\n")
    print(f"n = {small.num_connections}, B = {args.batch_size}, float32: milliseconds a time step, median (min-max)")
    print(f"{'T':>6} {'forward in time':>26} {'back through time':>26} {'p, q':>10} {'autograd':>10}")
    runs = {(name, steps): run for steps in args.lengths for name, run in both(small, steps, args).items()}
    times = seconds(runs, args.runs, args.device)
    for steps in args.lengths:
        row: dict[str, Any] = {"steps": steps, "bytes": memory(small, steps, args)}
        row["seconds"] = {name: times[name, steps] for name in ("forward", "bptt")}
        rule = (forward_bytes(small, args.batch_size), bptt_bytes(small, steps, args.batch_size))
        row["bytes_by_the_rule"] = dict(zip(("forward", "bptt"), rule, strict=True))
        report["lengths"].append(row)
        cells = [
            "{median:.3f} ({min:.3f}-{max:.3f})".format(**{k: 1e3 * v / steps for k, v in row["seconds"][name].items()})
            for name in ("forward", "bptt")
        ]
        kept = [f"{row['bytes'][name] / 2**20:.1f} MiB" for name in ("forward", "bptt")]
        print(f"{steps:>6} {cells[0]:>26} {cells[1]:>26} {kept[0]:>10} {kept[1]:>10}", flush=True)

    print(f"\n{'':>6} {'':>5} {'forward, ms a step':>26} {'back, ms a step':>26} {'forward, ns':>14}   crosses at T =")
    print(f"{'n':>6} {'bits':>5} {'':>26} {'':>26} {'/(n² log2 n)':>14} {'memory':>8} {'every step':>11}")
    for width in args.widths:
        wiring = Wiring(width, width)
        n = wiring.num_connections
        times = seconds(both(wiring, args.steps, args), args.runs, args.device)
        row = {"num_connections": n, "num_bits": wiring.num_bits}
        row["seconds"] = {name: {key: t / args.steps for key, t in times[name].items()} for name in times}
        row["crossings"] = crossings(wiring, row, args)
        report["sizes"].append(row)
        cells = [
            "{median:.2f} ({min:.2f}-{max:.2f})".format(**{k: 1e3 * v for k, v in row["seconds"][name].items()})
            for name in ("forward", "bptt")
        ]
        law = row["seconds"]["forward"]["median"] / (n**2 * np.log2(n))
        cross = f"{row['crossings']['memory']:>8.0f} {row['crossings']['gradient_after_every_step']:>11.1f}"
        print(f"{n:>6} {wiring.num_bits:>5} {cells[0]:>26} {cells[1]:>26} {1e9 * law:>14.3f} {cross}", flush=True)
    sizes = [row["num_connections"] for row in report["sizes"]]
    report["exponent"] = exponent(sizes, [row["seconds"]["forward"]["median"] for row in report["sizes"]])
    print(f"the forward gradient grows like (n² log2 n)^{report['exponent']:.2f}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
