"""Time the ops, forward and backward: Triton's kernels, with each rule of the SRWM, against naive eager, compiled
naive, cuDNN's LSTM and GRU of equal width, and flash-linear-attention's fused recurrent DeltaNet. Ops lstm and gru,
with H D units, are timed with resets against their naive step loop, and the ratio of the two is printed.

Every shape is checked first: outputs and gradients of the kernels, with each rule, and of flash-linear-attention
against the naive op in float64. Then medians (min-max) of CUDA events over many runs. "replayed" is the same work as a
CUDA graph: the device's time without the host's.

    python benchmarks/op.py
    python benchmarks/op.py --shapes sweep --compare lstm,gru,fla --json experiments/performance/op_sweep.json
    python benchmarks/op.py --compare eager,lstm,compile --shapes 32x50x8x16
    python benchmarks/op.py --ops lstm,gru --compare lstm,gru --shapes 16x128x1x128,64x32x1x128
    python benchmarks/op.py --ops srwm --compare "" --rules published --kernels
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.ops import SRWMState, SRWMWeights, delta_rule, gru, lstm, srwm

SHAPES = "32x50x8x16,1024x32x8x16,32x50x8x32,32x50x8x64,32x50x8x128"
SWEEP = ",".join(
    [f"32x{steps}x8x16" for steps in (1, 8, 50, 200, 1000, 4096)]
    + [f"{batch}x50x8x16" for batch in (1, 8, 128, 512, 2048, 8192)]
    + [f"32x50x8x{dim}" for dim in (8, 24, 32, 48, 64, 96, 128)]
)
"""What "--shapes sweep" means: each of T, B and D over its range, the others fixed."""
RULES: tuple[dict[str, Any], ...] = (
    {"decay": 0.95},
    {"unit_keys": True},
    {"decay": 0.95, "unit_keys": True},
    # The first limit is met by no step, as in a training that goes well; the second by most.
    {"decay": 0.95, "limit": 30.0},
    {"decay": 0.95, "limit": 0.1},
)
"""Settings of the SRWM that are checked and timed beside the published rule."""
ON_DEVICE = ("kernel", "gpu_memset", "gpu_memcpy")
"""Of the profiler's events, those of the device's work."""
COMPARED = ("eager", "lstm", "gru", "fla", "compile")
TOLERANCE = (10.0, 1e-5)
"""Relative error allowed against float64: so many times that of the naive op in float32, plus so much.

How much of float32's rounding a gradient keeps depends on the shape: small gradients of wide heads are differences of
larger numbers, and naive float32 itself is off by 2e-4 at D=64."""
CHECKED_STEPS, CHECKED_BATCH, CHECKED_SIZE = 256, 32, 2**27
"""The check runs on so many steps and batch elements at most, fewer where T H D D of them exceed the last, since naive
float64 keeps W for every step."""

Shape = tuple[int, int, int, int]
"""B, T, H, D (and O = D)."""


def srwm_inputs(shape: Shape, training: bool) -> tuple[list[Tensor], Tensor | None]:
    """x, weights, state (requires no gradient, as in training) and resets; the last two only if ``training``."""
    batch, steps, heads, dim = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=generator, device="cuda") * scale

    x = normal(batch, steps, heads, dim).softmax(-1)
    leaves = [x, *(normal(heads, dim, n, scale=dim**-0.5) for n in (dim, dim, dim, 4))]
    state = [normal(batch, heads, dim, n, scale=0.1) for n in (dim, dim, dim, 4)] if training else []
    resets = torch.rand(batch, steps, generator=generator, device="cuda") < 0.02 if training else None
    return [*(z.requires_grad_() for z in leaves), *state], resets


def delta_inputs(shape: Shape, training: bool) -> tuple[list[Tensor], Tensor | None]:
    """q, k, v, beta, state and resets; the last two only if ``training``."""
    batch, steps, heads, dim = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device="cuda")

    q, k = (normal(batch, steps, heads, dim).softmax(-1) for _ in range(2))
    leaves = [q, k, normal(batch, steps, heads, dim), normal(batch, steps, heads).sigmoid()]
    state = [normal(batch, heads, dim, dim)] if training else []
    resets = torch.rand(batch, steps, generator=generator, device="cuda") < 0.02 if training else None
    return [*(z.requires_grad_() for z in leaves), *state], resets


def recurrent_inputs(gates: int, states: int) -> Callable[[Shape, bool], tuple[list[Tensor], Tensor | None]]:
    """Of an op with so many gates and states: function to x, weight, bias, states and resets; resets only if
    ``training``."""

    def make(shape: Shape, training: bool) -> tuple[list[Tensor], Tensor | None]:
        batch, steps, heads, dim = shape
        hidden = heads * dim
        generator = torch.Generator("cuda").manual_seed(0)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, device="cuda")

        weight = normal(gates * hidden, hidden) * hidden**-0.5
        leaves = [normal(batch, steps, gates * hidden), weight, normal(gates * hidden)]
        resets = torch.rand(batch, steps, generator=generator, device="cuda") < 0.02 if training else None
        return [*(z.requires_grad_() for z in leaves), *(normal(batch, hidden) for _ in range(states))], resets

    return make


def call_srwm(inputs: list[Tensor], resets: Tensor | None, backend: str, **rule: Any) -> tuple[Tensor, ...]:
    """y and the final state's blocks."""
    state = SRWMState(*inputs[5:]) if len(inputs) > 5 else None
    y, final = srwm(inputs[0], SRWMWeights(*inputs[1:5]), state, resets=resets, backend=backend, **rule)
    return y, *final


def call_delta(inputs: list[Tensor], resets: Tensor | None, backend: str) -> tuple[Tensor, ...]:
    """y and the final state; "fla" is flash-linear-attention's recurrent kernel, which knows no resets."""
    if backend != "fla":
        return delta_rule(*inputs, resets=resets, backend=backend)
    from fla.ops.delta_rule import fused_recurrent_delta_rule  # pyright: ignore[reportMissingImports]

    if resets is not None:
        raise ValueError("backend 'fla' has no resets")
    return fused_recurrent_delta_rule(
        *inputs[:4], scale=1.0, initial_state=inputs[4] if len(inputs) > 4 else None, output_final_state=True
    )


def call_lstm(inputs: list[Tensor], resets: Tensor | None, backend: str) -> tuple[Tensor, ...]:
    """y and the final states."""
    return lstm(*inputs, resets=resets, backend=backend)


def call_gru(inputs: list[Tensor], resets: Tensor | None, backend: str) -> tuple[Tensor, ...]:
    """y and the final state."""
    return gru(*inputs, resets=resets, backend=backend)


OPS: dict[str, tuple[Callable[..., Any], Callable[..., tuple[Tensor, ...]]]] = {
    "srwm": (srwm_inputs, call_srwm),
    "delta": (delta_inputs, call_delta),
    "lstm": (recurrent_inputs(4, 2), call_lstm),
    "gru": (recurrent_inputs(3, 1), call_gru),
}


def check(op: str, shape: Shape, backend: str = "triton", **rule: Any) -> dict[str, float]:
    """Largest relative error to float64 of a backend and of the naive op in float32, over outputs and gradients; with a
    state, and with resets where the backend has them."""
    make, call = OPS[op]
    batch, steps, heads, dim = shape
    steps = min(steps, CHECKED_STEPS)
    batch = min(batch, CHECKED_BATCH, max(1, CHECKED_SIZE // (steps * heads * dim * dim)))
    inputs, resets = make((batch, steps, heads, dim), training=True)
    resets = None if backend == "fla" else resets

    def results(dtype: torch.dtype, backend: str) -> list[Tensor]:
        leaves = [z.detach().to(dtype).requires_grad_() for z in inputs]
        outputs = call(leaves, resets, backend, **rule)
        generator = torch.Generator("cuda").manual_seed(1)
        upstream = [torch.randn(z.shape, generator=generator, device="cuda").to(dtype) for z in outputs]
        return [z.detach().double() for z in (*outputs, *torch.autograd.grad(outputs, leaves, upstream))]

    true = results(torch.float64, "naive")
    worst = {backend: 0.0, "naive": 0.0}
    for got, naive, exact in zip(results(torch.float32, backend), results(torch.float32, "naive"), true, strict=True):
        error, allowed = ((z - exact).norm().item() / exact.norm().item() for z in (got, naive))
        if not error <= TOLERANCE[0] * allowed + TOLERANCE[1]:  # NaN fails as well
            raise SystemExit(
                f"{op} ({backend}{', ' if rule else ''}{described(rule)}) at {shape}: relative error {error:.1e} to "
                f"float64, naive float32 {allowed:.1e}"
            )
        worst = {backend: max(worst[backend], error), "naive": max(worst["naive"], allowed)}
    return worst


def described(rule: dict[str, Any]) -> str:
    """The settings of a rule as text: "decay 0.95, unit_keys"."""
    return ", ".join(name if value is True else f"{name} {value:g}" for name, value in rule.items())


def time_ms(run: Callable[[], object], rep: int = 200) -> dict[str, float]:
    """Median, min and max in milliseconds; the L2 cache is cleared before each run."""
    from triton.testing import do_bench

    quantiles: Any = do_bench(run, warmup=25, rep=rep, quantiles=[0.5, 0.0, 1.0])
    median, low, high = quantiles
    return {"median": median, "min": low, "max": high}


def captured(run: Callable[[], object]) -> Callable[[], None]:
    """``run`` as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def kernels_of(run: Callable[[], object], repeats: int = 20) -> list[dict[str, Any]]:
    """What ``run`` has the device do, in order: name, launches, median time in microseconds; of kernels also registers
    a thread, bytes of shared memory, grid and block; by PyTorch's profiler, the L2 cache as the run before left it."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("cat") in ON_DEVICE]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for event in sorted(events, key=lambda event: event["ts"]):
        by_name.setdefault(event["name"], []).append(event)
    found = []
    for name, same in by_name.items():
        about = same[-1]["args"]
        found.append(
            {
                "kernel": name[:80],
                "launches": len(same) / repeats,
                "us": statistics.median(event["dur"] for event in same),
                "registers": about.get("registers per thread"),
                "shared": about.get("shared memory"),
                "grid": about.get("grid"),
                "block": about.get("block"),
            }
        )
    return found


def forward_backward(call: Callable[[], tuple[Tensor, ...]], leaves: list[Tensor]) -> Callable[[], object]:
    """A closure that runs ``call`` and takes the gradients of its first output in ``leaves``."""
    upstream = torch.randn_like(call()[0])
    return lambda: torch.autograd.grad(call()[0], leaves, upstream)


def recurrent(kind: Callable[..., torch.nn.Module], shape: Shape) -> Callable[[], object]:
    """Forward and backward of cuDNN's LSTM or GRU, H D wide."""
    batch, steps, heads, dim = shape
    net = kind(heads * dim, heads * dim, batch_first=True, device="cuda")
    x = torch.randn(batch, steps, heads * dim, device="cuda", requires_grad=True)
    return forward_backward(lambda: net(x), [x, *net.parameters()])


def why_no_fla(op: str) -> str | None:
    """Why flash-linear-attention has nothing to compare with, None if it has."""
    if op != "delta":
        return "it has no self-referential weight matrix"
    return None if importlib.util.find_spec("fla") else "it is not installed (pip install flash-linear-attention)"


def measure(op: str, shape: Shape, compare: list[str], rules: bool, kernels: bool) -> dict[str, Any]:
    """Check, then time one op at one shape."""
    make, call = OPS[op]
    result: dict[str, Any] = {"op": op, "shape": shape, "relative_error": check(op, shape)}
    result |= {"ms": {}, "ratio": {}, "skipped": {}}
    times = result["ms"]

    def time_both(name: str, run: Callable[[], object]) -> None:
        times[name] = time_ms(run)
        times[f"{name}, replayed"] = time_ms(captured(run))

    for name, training in (("triton", False), ("triton, state and resets", True)):
        inputs, resets = make(shape, training)
        leaves = [z for z in inputs if z.requires_grad]
        time_both(name, forward_backward(lambda i=inputs, r=resets: call(i, r, "triton"), leaves))

    if kernels:
        inputs, resets = make(shape, False)
        leaves = [z for z in inputs if z.requires_grad]
        result["kernels"] = kernels_of(forward_backward(lambda: call(inputs, resets, "triton"), leaves))

    if op == "srwm" and rules:
        inputs, resets = make(shape, True)
        leaves = [z for z in inputs if z.requires_grad]
        for rule in RULES:
            check(op, shape, **rule)
            run = forward_backward(lambda r=rule: call_srwm(inputs, resets, "triton", **r), leaves)
            time_both(f"triton, state and resets, {described(rule)}", run)

    if op in ("lstm", "gru"):
        inputs, resets = make(shape, True)
        leaves = [z for z in inputs if z.requires_grad]
        time_both("naive eager, state and resets", forward_backward(lambda: call(inputs, resets, "naive"), leaves))
        for way in ("", ", replayed"):
            kernels, loop = (times[f"{name}, state and resets{way}"]["median"] for name in ("triton", "naive eager"))
            result["ratio"] |= {f"step loop / triton{way}": loop / kernels}

    inputs, resets = make(shape, False)
    leaves = [z for z in inputs if z.requires_grad]
    if "eager" in compare:
        times["naive eager"] = time_ms(forward_backward(lambda: call(inputs, resets, "naive"), leaves), rep=1000)
    if "compile" in compare:
        compiled = torch.compile(lambda: call(inputs, resets, "naive"))
        times["naive, torch.compile"] = time_ms(forward_backward(compiled, leaves))
    if "lstm" in compare:
        time_both("LSTM (cuDNN)", recurrent(torch.nn.LSTM, shape))
    if "gru" in compare:
        time_both("GRU (cuDNN)", recurrent(torch.nn.GRU, shape))
    if "fla" in compare:
        if reason := why_no_fla(op):
            result["skipped"]["fla"] = reason
        else:
            result["relative_error"] |= check(op, shape, "fla")
            time_both("fla", forward_backward(lambda: call_delta(inputs, None, "fla"), leaves))
    return result


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import triton

    return {
        "gpu": torch.cuda.get_device_name(),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="srwm,delta", help=f"of {', '.join(OPS)} (default: %(default)s)")
    parser.add_argument("--shapes", default=SHAPES, help="BxTxHxD, comma-separated, or sweep (default: %(default)s)")
    parser.add_argument(
        "--compare", default="eager,lstm,gru,fla", help=f"of {', '.join(COMPARED)} (default: %(default)s)"
    )
    parser.add_argument(
        "--rules", default="all", choices=("all", "published"), help="of the SRWM: all, or that of the paper alone"
    )
    parser.add_argument("--kernels", action="store_true", help="also the time and the resources of each kernel")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    for name, allowed in (("ops", set(OPS)), ("compare", set(COMPARED))):
        values = [value for value in getattr(args, name).split(",") if value]
        if wrong := set(values) - allowed:
            parser.error(f"--{name} has {sorted(wrong)}, allowed: {', '.join(sorted(allowed))}")
        setattr(args, name, values)
    try:
        shapes = SWEEP if args.shapes == "sweep" else args.shapes
        args.shapes = [tuple(map(int, shape.split("x"))) for shape in shapes.split(",")]
        if any(len(shape) != 4 or min(shape) < 1 for shape in args.shapes):
            raise ValueError
    except ValueError:
        parser.error("--shapes must be sweep, or like 32x50x8x16,1024x32x8x16: B, T, H and D, each at least 1")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    args = parse(arguments)
    if not torch.cuda.is_available():
        print("benchmarks/op.py: no CUDA device: nothing to measure", file=sys.stderr)
        return 1
    report: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "results": []}
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for op in args.ops:
        for shape in args.shapes:
            result = measure(op, shape, args.compare, args.rules == "all", args.kernels)
            report["results"].append(result)
            print(f"\n{op}, B{shape[0]} T{shape[1]} H{shape[2]} D{shape[3]}, forward and backward, float32; "
                  f"largest relative error to float64 {result['relative_error']['triton']:.0e} "
                  f"(naive float32: {result['relative_error']['naive']:.0e})")  # fmt: skip
            for name, ms in result["ms"].items():
                print(f"  {name:<64}{ms['median']:>9.3f} ms   ({ms['min']:.3f}-{ms['max']:.3f})", flush=True)
            for name, ratio in result["ratio"].items():
                print(f"  {name:<64}{ratio:>9.1f}")
            for kernel in result.get("kernels", ()):
                print(f"  kernel {kernel['kernel']:<57}{kernel['us']:>9.1f} us   ({kernel['registers']} registers, "
                      f"{kernel['shared']} bytes shared, grid {kernel['grid']}, block {kernel['block']})")  # fmt: skip
            for name, reason in result["skipped"].items():
                print(f"  {name} skipped: {reason}")
            if args.json:
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
