"""Makes the tables and pictures of docs/performance.md from the raw numbers in this folder.

python -m experiments.performance.make_page
python -m experiments.performance.make_page --check
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import pages
from srwm_agents import plotting

RAW = Path(__file__).parent
PICTURES = pages.PICTURES / "performance"
LONG_RUN = RAW.parent / "procgen" / "runs" / "gamma_999" / "curves.csv.xz"
PRECISIONS = dict(zip(("bf16", "fp32"), plotting.COLOURS, strict=False))


def read(name: str) -> dict[str, Any]:
    """One benchmark's report."""
    return json.loads((RAW / name).read_text())


def op_table(name: str) -> str:
    """Milliseconds of the ops and what they are compared with, one row a shape and way."""
    lines = ["| op and shape | way | median, ms | min-max | ratio |", "|---|---|---|---|---|"]
    for result in read(name)["results"]:
        batch, steps, heads, dim = result["shape"]
        base = result["ms"]["triton, replayed"]["median"]
        for way, ms in result["ms"].items():
            ratio = "" if way.startswith("triton") else f"{ms['median'] / base:.0f}"
            lines.append(
                f"| {result['op']} B{batch} T{steps} H{heads} D{dim} | {way} | {ms['median']:.3f} "
                f"| {ms['min']:.3f}-{ms['max']:.3f} | {ratio} |"
            )
    return "\n".join(lines)


def wide_table() -> str:
    """Microseconds of the SRWM forward and backward, by head width, before and after the kernels for wide heads."""
    lines = ["| shape | before, µs | now, µs (min-max) | with state and resets | and decay |", "|---|---|---|---|---|"]
    for result in read("op_wide.json")["results"]:
        batch, steps, heads, dim = result["shape"]
        before, given, decay = (
            "–" if result[key] is None else f"{result[key]:,.0f}"
            for key in ("before_us", "state_and_resets_us", "and_decay_us")
        )
        now = f"{result['us']:,.0f} ({result['min']:,.0f}-{result['max']:,.0f})"
        lines.append(f"| B{batch} T{steps} H{heads} D{dim} | {before} | {now} | {given} | {decay} |")
    return "\n".join(lines)


RULES = {
    "no state": "triton",
    "state, resets": "triton, state and resets",
    "unit keys": "triton, state and resets, unit_keys",
    "decay": "triton, state and resets, decay 0.95",
    "unit keys, decay": "triton, state and resets, decay 0.95, unit_keys",
    "decay, limit": "triton, state and resets, decay 0.95, limit 30",
    "LSTM": "LSTM (cuDNN)",
    "GRU": "GRU (cuDNN)",
}
"""Columns of the table of rules, and the ways that they are measured by; all as CUDA graphs."""


def replayed_table(name: str, columns: dict[str, str]) -> str:
    """Microseconds of an op forward and backward as CUDA graphs, a row a shape and a column a way."""
    lines = ["| shape | " + " | ".join(f"{title}, µs" for title in columns) + " |", "|---|" + "---|" * len(columns)]
    for result in read(name)["results"]:
        batch, steps, heads, dim = result["shape"]
        cells = [f"{1000 * result['ms'][f'{way}, replayed']['median']:,.0f}" for way in columns.values()]
        lines.append(f"| B{batch} T{steps} H{heads} D{dim} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


RECURRENT = {
    "kernel": "triton",
    "with state and resets": "triton, state and resets",
    "PyTorch's cells, step by step": "naive eager, state and resets",
}
"""Columns of the table of LSTM and GRU, all as CUDA graphs; beside them cuDNN's layer, which knows no resets."""


def recurrent_table() -> str:
    """Milliseconds of the LSTM and the GRU forward and backward."""
    lines = ["| op and shape | " + " | ".join(f"{name}, ms" for name in RECURRENT) + " | cuDNN, ms |"]
    lines.append("|---|" + "---|" * (len(RECURRENT) + 1))
    for result in read("op_recurrent.json")["results"]:
        op, (batch, steps, _, width) = result["op"], result["shape"]
        ways = [*RECURRENT.values(), f"{op.upper()} (cuDNN)"]
        cells = [f"{result['ms'][f'{way}, replayed']['median']:.2f}" for way in ways]
        lines.append(f"| {op} B{batch} T{steps}, {width} units | " + " | ".join(cells) + " |")
    return "\n".join(lines)


DELTA = {
    "no state": "triton",
    "state, resets": "triton, state and resets",
    "flash-linear-attention": "fla",
    "LSTM": "LSTM (cuDNN)",
    "GRU": "GRU (cuDNN)",
}
"""Columns of the table of the delta rule, all as CUDA graphs."""


def kernels_table() -> str:
    """What the device does for the SRWM forward and backward, each kernel with its share and its resources."""
    lines = ["| shape | as a graph, µs | kernel | µs | programs | threads | registers |", "|---" * 7 + "|"]
    for result in read("op_kernels.json")["results"]:
        batch, steps, heads, dim = result["shape"]
        whole = f"{1000 * result['ms']['triton, replayed']['median']:,.0f}"
        shape = f"B{batch} T{steps} H{heads} D{dim}"
        for kernel in result["kernels"]:
            name = f"`{kernel['kernel'][:40]}`" + (f" × {kernel['launches']:.0f}" if kernel["launches"] > 1 else "")
            sizes = ("–", "–") if kernel["grid"] is None else (f"{kernel['grid'][0]:,}", str(kernel["block"][0]))
            registers = "–" if kernel["registers"] is None else str(kernel["registers"])
            lines.append(f"| {shape} | {whole} | {name} | {kernel['us']:,.1f} | {' | '.join([*sizes, registers])} |")
            shape = whole = ""
    return "\n".join(lines)


def ranks_table() -> str:
    """Frames a second by the number of processes, each on a GPU of its own."""
    lines = ["| processes | frames/s | measured over | ratio |", "|---|---|---|---|"]
    runs = read("ranks.json")["runs"]
    base = next(iter(runs.values()))[0]["frames_per_second"]
    for ranks, same in runs.items():
        for run in same:
            rate = run["frames_per_second"]
            lines.append(f"| {ranks} | {rate:,.0f} | {run['measured_seconds']:.0f} s | {rate / base:.2f} |")
    return "\n".join(lines)


def rounds_table() -> str:
    """Frames a second of training with each core, by round, and the ratio of the medians."""
    runs = read("training_rounds.json")["runs"]
    rates = {core: [run["frames_per_second"] for run in same] for core, same in runs.items()}
    base = float(np.median(list(rates.values())[-1]))
    lines = ["| core | frames/s of each round | median | ratio |", "|---|---|---|---|"]
    for core, values in rates.items():
        each = ", ".join(f"{value:,.0f}" for value in values)
        lines.append(f"| {core} | {each} | {np.median(values):,.0f} | {np.median(values) / base:.2f} |")
    return "\n".join(lines)


def draw_sweep(picture: Path) -> None:
    """Time against T, B and D, each with the other two fixed."""
    results = read("op_sweep.json")["results"]
    fixed = {"B": 32, "T": 50, "D": 16}
    with plotting.drawing(picture, plotting.PAGE_INCHES, 3.9) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for axis, name in zip(axes, "TBD", strict=True):
            rows = []
            for result in results:
                shape = dict(zip("BTHD", result["shape"], strict=True))
                if all(shape[other] == value for other, value in fixed.items() if other != name):
                    rows.append((shape[name], result["ms"]))
            rows.sort(key=lambda row: row[0])
            x = np.array([row[0] for row in rows])
            for way, label, style in (
                ("triton, replayed", "SRWM", "o-"),
                ("triton, state and resets, replayed", "SRWM, state and resets", "o--"),
                ("LSTM (cuDNN)", "LSTM of equal width (cuDNN, eager)", "s:"),
            ):
                axis.loglog(x, [row[1][way]["median"] for row in rows], style, label=label, markersize=4)
            if name == "D":
                base = rows[0][1]["triton, replayed"]["median"]
                axis.loglog(x, base * (x / x[0]) ** 2, color=plotting.PALE, linewidth=0.8, label="D²")
            rest = ", ".join(f"{other} = {value}" for other, value in fixed.items() if other != name)
            axis.set_title(f"H = 8, {rest}")
            axis.set_xlabel({"T": "steps T", "B": "batch B", "D": "head width D"}[name])
            axis.set_xticks(x, [f"{value:,}" for value in x], rotation=45)
            axis.minorticks_off()
        axes[0].set_ylabel("forward + backward, ms")
        figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=2)


def acting_table() -> str:
    """Milliseconds of one step on a CPU core."""
    lines = ["| core | step, median (min-max), ms | of it encoder | core |", "|---|---|---|---|"]
    for core, ms in read("acting.json")["ms"].items():
        step = ms["step"]
        lines.append(
            f"| {core} | {step['median']:.1f} ({step['min']:.1f}-{step['max']:.1f}) "
            f"| {ms['encoder']['median']:.1f} | {ms['core']['median']:.1f} |"
        )
    return "\n".join(lines)


def cpu_table() -> str:
    """Milliseconds on one thread of a CPU, by kind of work, and the ratio to an LSTM in the same rounds."""
    lines = ["| work | way | median, ms | min-max | by torch.nn.LSTM |", "|---|---|---|---|---|"]
    for work, ways in read("cpu.json")["results"].items():
        for way, ms in ways.items():
            span = f"{ms['min']:.2f}-{ms['max']:.2f}"
            lines.append(f"| {work} | {way} | {ms['median']:.2f} | {span} | {ms['ratio']:.2f} |")
    return "\n".join(lines)


def cores_table() -> str:
    """Parameters, state and time of every core at one width, and the ratio to the GRU core in the same rounds."""
    report = read("cores.json")
    works = report["results"]
    titles = [f"{work}, ms | by gru" for work in works]
    lines = ["| core | parameters | state | " + " | ".join(titles) + " |", "|---" * (3 + 2 * len(works)) + "|"]
    for core, size in report["state_size"].items():
        cells = [f"{ms[core]['median']:.2f} | {ms[core]['ratio']:.2f}" for ms in works.values()]
        lines.append(f"| `{core}` | {report['parameters'][core]:,} | {size:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def actor_thread_table() -> str:
    """Milliseconds of a turn of the acting thread by part, and frames a second, by engine and games in flight."""
    parts = {
        "turn": "turn",
        "observe: environment: wait for the simulator": "wait for the simulator",
        "observe: environment: uploads": "uploads",
        "act: launches": "launches of acting",
        "send: wait for the actions, start the simulator": "send",
    }
    lines = ["| engine | " + " | ".join(f"{name}, ms" for name in parts.values()) + " | frames/s |"]
    lines.append("|---" * (len(parts) + 2) + "|")
    for run in read("actor_thread.json")["runs"]:
        cells = [f"{run['parts'][part]['ms_a_turn']:.2f}" for part in parts]
        lines.append(f"| {run['name']} | {' | '.join(cells)} | {run['frames_per_second']:,.0f} |")
    return "\n".join(lines)


def learner_table() -> str:
    """Milliseconds of an update and of its convolutions, by engine."""
    lines = ["| engine | an update, ms | µs a frame | of it convolutions, ms |", "|---|---|---|---|"]
    for run in read("update_six_games.json")["runs"]:
        convolutions = sum(
            kernel["ms"] for kernel in run["kernels"] if any(word in kernel["kernel"] for word in ("conv", "xmma"))
        )
        median = run["ms"]["median"]
        lines.append(f"| {run['name']} | {median:.2f} | {1e3 * median / run['frames']:.2f} | {convolutions:.1f} |")
    return "\n".join(lines)


def convolution_table() -> str:
    """Microseconds of the convolutions' kernels as they are launched, and of cuDNN's."""
    lines = ["| images, channels in and out, side | work | kernel, µs | cuDNN, µs |", "|---|---|---|---|"]
    for result in read("conv3x3.json")["results"]:
        shape = result["shape"]
        sizes = f"{shape['images']:,}, {shape['in']} and {shape['out']}, {shape['side']}"
        best = min(variant["us"] + variant.get("sum_us", 0) for variant in result["variants"])
        work = ("relu, " if result["relu_in"] else "") + result["work"]
        library = "–" if result["cudnn_us"] is None else f"{result['cudnn_us']:.0f}"
        lines.append(f"| {sizes} | {work} | {best:.0f} | {library} |")
    return "\n".join(lines)


def slope(points: pd.Series) -> tuple[float, float]:
    """Frames a second from the second point with frames to the last, and the seconds between them."""
    points = points[points > 0].iloc[1:]
    seconds = points.index[-1] - points.index[0]
    return (points.iloc[-1] - points.iloc[0]) / seconds, seconds


def logged(file: Path, seconds_apart: float = 20.0) -> pd.Series:
    """Frames over seconds from the lines that training prints; the first seconds are not known, only differences."""
    frames = [
        int(found.replace(",", "")) for found in re.findall(r"^([\d,]+) of [\d,]+ frames", file.read_text(), re.M)
    ]
    return pd.Series(frames, index=np.arange(len(frames)) * seconds_apart)


def training_table() -> str:
    """Frames a second of whole training runs."""
    lines = ["| run | frames/s | measured over |", "|---|---|---|"]

    def row(name: str, rate: float, seconds: float) -> None:
        lines.append(f"| {name} | {rate:,.0f} | {seconds:.0f} s |")

    row("processes, six games, H200, before", *slope(_curve(RAW / "nine_minutes.csv")))
    row("8 vectors of 192, six games", *slope(logged(RAW / "six_games_8_vectors.log")))
    row("4 vectors of 384, six games, srwm, the long run", *slope(_curve(LONG_RUN)))
    for file, name in BENCHMARKS.items():
        for core, runs in read(file)["runs"].items():
            for run in runs:
                row(f"{name}, {core}", run["frames_per_second"], run["measured_seconds"])
    for precision in PRECISIONS:
        for file in sorted(RAW.glob(f"two_games_{precision}_seed*.csv")):
            row(f"4 vectors of 384, two games, {precision}, seed {file.stem[-1]}", *slope(_curve(file)))
    return "\n".join(lines)


BENCHMARKS = {
    "training_8_vectors.json": "8 vectors of 192, six games",
    "training_8_vectors_1536.json": "8 vectors of 192, six games, an update per 1,536 frames",
    "training.json": "4 vectors of 384, six games",
    "training_1536.json": "4 vectors of 384, six games, an update per 1,536 frames",
}


def _curve(file: Path) -> pd.Series:
    return pd.read_csv(file).groupby("seconds")["frames"].max()


def precision_table() -> str:
    """Mean return over the last million of ten million frames, by game, precision and seed."""
    lines = ["| game | precision | each seed | mean |", "|---|---|---|---|"]
    table: dict[tuple[str, str], list[float]] = {}
    for precision in PRECISIONS:
        for file in sorted(RAW.glob(f"two_games_{precision}_seed*.csv")):
            curves = pd.read_csv(file)
            last = curves[curves["frames"] > curves["frames"].max() - 1_000_000]
            for game, mean in last.groupby("game")["mean_return"].mean().items():
                table.setdefault((str(game), precision), []).append(float(mean))
    for (game, precision), means in sorted(table.items()):
        seeds = ", ".join(f"{mean:.2f}" for mean in means)
        lines.append(f"| {game} | {precision} | {seeds} | {np.mean(means):.2f} |")
    return "\n".join(lines)


def draw_precisions(picture: Path) -> None:
    """Learning curves in both precisions, over frames: a thin line a seed, a thick one their mean."""
    grid = np.linspace(0, 1e7, 101)
    with plotting.drawing(picture, plotting.PAGE_INCHES, 3.1) as figure:
        axes = figure.subplots(1, 2)
        for precision, colour in PRECISIONS.items():
            seeds: dict[str, list[Any]] = {}
            for file in sorted(RAW.glob(f"two_games_{precision}_seed*.csv")):
                for game, points in pd.read_csv(file).groupby("game"):
                    seeds.setdefault(str(game), []).append(np.interp(grid, points["frames"], points["mean_return"]))
            for axis, (game, curves) in zip(axes, sorted(seeds.items()), strict=True):
                for curve in curves:
                    axis.plot(grid / 1e6, curve, color=colour, lw=0.7, alpha=0.6)
                axis.plot(grid / 1e6, np.mean(curves, axis=0), color=colour, lw=2, label=precision)
                axis.set(title=game, xlabel="million frames", ylabel="return, last 100 episodes")
        for axis in axes:
            plotting.label_lines(axis)


def texts() -> pages.Texts:
    page = pages.DOCS / "performance.md"
    tables = {
        "op": op_table("op.json"),
        "op on an H200": op_table("op_h200.json"),
        "rules": replayed_table("op_rules.json", RULES),
        "delta rule": replayed_table("op_delta.json", DELTA),
        "kernels": kernels_table(),
        "recurrent": recurrent_table(),
        "rounds": rounds_table(),
        "processes": ranks_table(),
        "wide heads": wide_table(),
        "acting": acting_table(),
        "cpu": cpu_table(),
        "training": training_table(),
        "actor thread": actor_thread_table(),
        "learner": learner_table(),
        "convolutions": convolution_table(),
        "precision": precision_table(),
    }
    cores = pages.DOCS / "cores.md"
    script = "experiments.performance.make_page"
    return {page: pages.fill(page, script, tables), cores: pages.fill(cores, script, {"cores": cores_table()})}


def draw() -> None:
    draw_sweep(PICTURES / "op_sweep.png")
    draw_precisions(PICTURES / "precisions.png")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
