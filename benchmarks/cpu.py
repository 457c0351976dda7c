"""Time memories on CPU threads, beside an LSTM of the same width: training and acting, compiled kernels and naive op.

Every op is checked first: the compiled kernels' outputs and gradients against the naive op in float64. Then all ways
are run in turn, round after round; a ratio is the median over rounds of a way's time by that of torch.nn.LSTM in the
same round, which bears other work on the machine better than a ratio of medians. "layer" is the memory layer alone, as
is torch.nn.LSTM; "core" has its embedding and its feed-forward block of 4 times the width, too. On one thread the times
are the process's on the processor, which other work on the machine lengthens less than the clock's.

The exact command behind the committed table:

    python benchmarks/cpu.py --json experiments/performance/cpu.json
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
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.cores import make_core
from srwm_agents.layers import DeltaLayer, SRWMLayer
from srwm_agents.ops import SRWMState, SRWMWeights, delta_rule, srwm

WIDTH, HEADS = 128, 8
WORK = {"train B64 T32": (64, 32, 1), "act B1": (1, 1, 20), "act B64": (64, 1, 5)}
"""Batch, steps, and calls in a round."""
TOLERANCE = (10.0, 1e-5)
"""Relative error allowed against float64: so many times that of the naive op in float32, plus so much."""
REFERENCE = "torch.nn.LSTM"


def call_srwm(inputs: list[Tensor], resets: Tensor, backend: str) -> list[Tensor]:
    """y and the final state's blocks."""
    y, final = srwm(
        inputs[0], SRWMWeights(*inputs[1:5]), SRWMState(*inputs[5:]), resets=resets, decay=0.98, backend=backend
    )
    return [y, *final]


def call_delta(inputs: list[Tensor], resets: Tensor, backend: str) -> list[Tensor]:
    """y and the final state."""
    return list(delta_rule(*inputs, resets=resets, backend=backend))


def check(op: str) -> dict[str, float]:
    """Largest relative error to float64 of the kernels and of the naive op in float32, over outputs and gradients."""
    batch, steps, dim = 64, 32, WIDTH // HEADS
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=generator) * scale

    if op == "srwm":
        widths = (dim, dim, dim, 4)
        inputs = [normal(batch, steps, HEADS, dim).softmax(-1), *(normal(HEADS, dim, n, scale=0.25) for n in widths)]
        inputs += [normal(batch, HEADS, dim, n, scale=0.1) for n in widths]
        call = call_srwm
    else:
        inputs = [normal(batch, steps, HEADS, dim).softmax(-1) for _ in range(2)]
        inputs += [normal(batch, steps, HEADS, dim), normal(batch, steps, HEADS).sigmoid()]
        inputs += [normal(batch, HEADS, dim, dim)]
        call = call_delta
    resets = torch.rand(batch, steps, generator=generator) < 0.02

    def results(dtype: torch.dtype, backend: str) -> list[Tensor]:
        leaves = [z.to(dtype).requires_grad_() for z in inputs]
        outputs = call(leaves, resets, backend)
        upstream = [torch.randn(z.shape, generator=torch.Generator().manual_seed(1)).to(dtype) for z in outputs]
        return [z.detach().double() for z in (*outputs, *torch.autograd.grad(outputs, leaves, upstream))]

    worst = {"cpu": 0.0, "naive": 0.0}
    ways = [results(torch.float32, way) for way in worst]
    for exact, *got in zip(results(torch.float64, "naive"), *ways, strict=True):
        errors = [((z - exact).norm() / exact.norm()).item() for z in got]
        if not errors[0] <= TOLERANCE[0] * errors[1] + TOLERANCE[1]:  # NaN fails as well
            raise SystemExit(f"{op}: relative error {errors[0]:.1e} to float64, naive float32 {errors[1]:.1e}")
        worst = {way: max(worst[way], error) for way, error in zip(worst, errors, strict=True)}
    return worst


class LSTM(nn.Module):
    """torch.nn.LSTM, called as the others are."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, batch, WIDTH), torch.zeros(1, batch, WIDTH)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        return self.lstm(x, state)


def modules() -> dict[str, Any]:
    """What is timed, by name."""

    def core(name: str, backend: str = "auto") -> nn.Module:
        return make_core(
            name, input_size=WIDTH, hidden_size=WIDTH, num_layers=1, num_heads=HEADS, ff_size=4 * WIDTH, backend=backend
        )

    return {
        REFERENCE: LSTM(),
        "SRWM layer": SRWMLayer(WIDTH, HEADS, backend="cpu"),
        "SRWM layer, naive": SRWMLayer(WIDTH, HEADS, backend="naive"),
        "delta layer": DeltaLayer(WIDTH, HEADS, backend="cpu"),
        "delta layer, naive": DeltaLayer(WIDTH, HEADS, backend="naive"),
        "LSTM core": core("lstm"),
        "SRWM core": core("srwm", "cpu"),
        "SRWM core, naive": core("srwm", "naive"),
        "feed-forward core": core("feedforward"),
    }


def runner(module: Any, batch: int, steps: int) -> Callable[[], object]:
    """One update's forward and backward pass, or, of a single step, one of acting."""
    x, state = torch.randn(batch, steps, WIDTH), module.initial_state(batch)
    if steps == 1:
        return torch.no_grad()(lambda: module(x, state))
    x.requires_grad_()
    leaves = [x, *module.parameters()]
    upstream = torch.randn(batch, steps, WIDTH)
    return lambda: torch.autograd.grad(module(x, state)[0], leaves, upstream)


def measure(batch: int, steps: int, calls: int, rounds: int, clock: Callable[[], float]) -> dict[str, dict[str, float]]:
    """Milliseconds a call (median, min, max) and the median ratio to the LSTM's, by way."""
    runs = {name: runner(module, batch, steps) for name, module in modules().items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for n in range(rounds):
        for name in runs if n % 2 else reversed(runs):
            began = clock()
            for _ in range(calls):
                runs[name]()
            times[name].append(1e3 * (clock() - began) / calls)
        if sys.stderr.isatty():
            print(f"\r  round {n + 1} of {rounds}", end="\n" if n + 1 == rounds else "", file=sys.stderr)
    ratios = [[a / b for a, b in zip(ms, times[REFERENCE], strict=True)] for ms in times.values()]
    return {
        name: {"median": statistics.median(ms), "min": min(ms), "max": max(ms), "ratio": statistics.median(ratio)}
        for (name, ms), ratio in zip(times.items(), ratios, strict=True)
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each kind of work (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    for name in ("threads", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}, expected at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, print tables, write JSON; returns the exit status."""
    args = parse(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    machine = {
        "cpu": platform.processor() or platform.machine(), "threads": args.threads,
        "python": platform.python_version(), "torch": torch.__version__,
    }  # fmt: skip
    command = " ".join(["python", *sys.argv])
    report: dict[str, Any] = {"command": command, "machine": machine, "relative_error": {}, "results": {}}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for op in ("srwm", "delta"):
        report["relative_error"][op] = check(op)
        print(f"{op}: largest relative error to float64: " + ", ".join(
            f"{way} {error:.0e}" for way, error in report["relative_error"][op].items()))  # fmt: skip
    for work, (batch, steps, calls) in WORK.items():
        report["results"][work] = measure(batch, steps, calls, args.rounds, clock)
        print(f"\n{work}, width {WIDTH}, {HEADS} heads, float32")
        for name, ms in report["results"][work].items():
            span = f"{ms['min']:.3f}-{ms['max']:.3f}"
            print(f"  {name:<22}{ms['median']:>9.3f} ms   ({span})   {ms['ratio']:.2f}", flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
