"""Makes the tables and pictures of docs/results/introspective.md from the runs in this folder.

    python -m experiments.introspective.make_page
    python -m experiments.introspective.make_page --check

``runs/NAME/`` holds what ``introspective train`` wrote in ``results.json``: the settings in ``config.yaml``, a row an
update and seed in ``curves.csv``, and the rest in ``summary.json``. A run whose name has ``ablation`` in it had its
delta forced to 0.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from experiments import pages
from srwm_agents import plotting
from srwm_agents.introspective.trace import draw as draw_trace

HERE = Path(__file__).parent
RUNS = HERE / "runs"
PICTURES = pages.PICTURES / "introspective"
TASKS = ("boolean", "recall", "rewrite")
ON, OFF = plotting.COLOURS[:2]
VARIANTS = {
    "rewrite": "rewrite as above",
    "rewrite_longer": "4,000 updates in place of 1,000",
    "rewrite_width_03": "narrower bump: `--width 0.3`",
    "rewrite_compact_15": "`--bump compact --width 1.5`",
    "rewrite_compact_05": "one weight a touch: `--bump compact --width 0.5`",
    "rewrite_sgd": "plain gradient descent, η = 1",
    "recall_ablation_longer": "recall, Δ = 0, 4,000 updates",
    "recall_ablation_init_3": "recall, Δ = 0, 4,000 updates, `--init_scale 3`",
}
FALLING = 0.05
"""A seed whose loss still fell by this share over its last quarter is called slow, not stuck."""
WORSE = 1.5, 0.01
"""A seed whose loss is so many times, and by so much, above the best seed's is no better than stuck, solved or not."""


def load(name: str) -> dict[str, Any]:
    """A run's summary, and its losses: "updates_logged" [rows], "curve" [rows, seeds]."""
    curves = pd.read_csv(RUNS / name / "curves.csv", float_precision="round_trip")
    losses = curves.pivot_table(index="update", columns="seed", values="loss")
    summary = json.loads((RUNS / name / "summary.json").read_text())
    return summary | {"updates_logged": losses.index.to_numpy(), "curve": losses.to_numpy()}


def solved(run: dict[str, Any]) -> str:
    """Count and 95 % Wilson interval."""
    count, number = sum(run["solved"]), len(run["solved"])
    interval = stats.binomtest(count, number).proportion_ci(method="wilson")
    return f"{count} of {number} ({interval.low:.0%}-{interval.high:.0%})"


def stuck(run: dict[str, Any]) -> tuple[int, int]:
    """How many seeds are stuck, and how many slow: unsolved or in a minimum worse than the best seed's."""
    loss = run["curve"]
    tenth = len(loss) // 10
    before = loss[-len(loss) // 4 - tenth : -len(loss) // 4].mean(0)
    falling = loss[-tenth:].mean(0) < (1 - FALLING) * before
    final = np.array(run["loss"])
    worse = (final > WORSE[0] * final.min()) & (final > WORSE[1] + final.min())
    bad = worse | ~np.array(run["solved"])
    return int((bad & ~falling).sum()), int((bad & falling).sum())


def clusters(run: dict[str, Any]) -> str:
    """Final losses to two digits, and how many seeds ended there."""
    count = Counter(f"{loss:.2f}" for loss in run["loss"])
    return ", ".join(f"{loss} × {number}" for loss, number in sorted(count.items()))


def right(run: dict[str, Any]) -> str:
    """Mean and range of the share of right answers."""
    accuracy = run["accuracy"]
    return f"{np.mean(accuracy):.1%} ({min(accuracy):.1%}-{max(accuracy):.1%})"


def main_table() -> str:
    """Every task with its ablation on the same seeds."""
    lines = [
        "| task | Δ | solved (95 % interval) | right answers, mean (range) | stuck | slow | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in TASKS:
        for name, delta in ((task, "learned"), (f"{task}_ablation", "forced to 0")):
            run = load(name)
            still, falling = stuck(run)
            lines.append(
                f"| {task} | {delta} | {solved(run)} | {right(run)} | {still} | {falling} | {run['seconds'] / 60:.1f} |"
            )
    return "\n".join(lines)


def minima_table() -> str:
    """Where the runs of one setting end."""
    lines = ["| setting | solved (95 % interval) | stuck | slow | final E_total × seeds |", "|---|---|---|---|---|"]
    for name, about in VARIANTS.items():
        run = load(name)
        still, falling = stuck(run)
        lines.append(f"| {about} | {solved(run)} | {still} | {falling} | {clusters(run)} |")
    return "\n".join(lines)


def lengths_table(report: dict[str, Any]) -> str:
    """Cost of a step against the sequence's length."""
    lines = [
        "| T | forward, ms a step | back-propagation, ms a step | p and q | autograd keeps |",
        "|---|---|---|---|---|",
    ]
    for row in report["lengths"]:
        times = [_ms(row["seconds"][name], row["steps"]) for name in ("forward", "bptt")]
        kept = [f"{row['bytes'][name] / 2**20:.1f} MiB" for name in ("forward", "bptt")]
        lines.append("| " + " | ".join([str(row["steps"]), *times, *kept]) + " |")
    return "\n".join(lines)


def sizes_table(report: dict[str, Any]) -> str:
    """Cost of a step against the number of connections, and the crossings."""
    lines = [
        "| n_conn | forward, ms a step | back-propagation, ms a step | forward, ns / (n² log2 n) "
        "| memory crosses at T | time crosses at T, gradient after every step |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["sizes"]:
        n, cross = row["num_connections"], row["crossings"]
        times = [_ms(row["seconds"][name], 1) for name in ("forward", "bptt")]
        law = 1e9 * row["seconds"]["forward"]["median"] / (n**2 * np.log2(n))
        lines.append(
            f"| {n:,} | {times[0]} | {times[1]} | {law:.2f} | {cross['memory']:.0f} "
            f"| {cross['gradient_after_every_step']:.0f} |"
        )
    return "\n".join([*lines, "", f"The forward gradient's step grows like (n² log2 n)^{report['exponent']:.2f}."])


def _ms(seconds: dict[str, float], steps: int) -> str:
    return "{median:.2f} ({min:.2f}-{max:.2f})".format(**{k: 1e3 * v / steps for k, v in seconds.items()})


def draw_curves(picture: Path) -> None:
    """Loss of every seed, with and without self-modification."""
    with plotting.drawing(picture, plotting.PAGE_INCHES, 2.9) as figure:
        for axis, task in zip(figure.subplots(1, 3), TASKS, strict=True):
            for name, colour, label in ((f"{task}_ablation", OFF, "Δ forced to 0"), (task, ON, "Δ learned")):
                run = load(name)
                lines = axis.plot(run["updates_logged"], run["curve"], color=colour, lw=0.9, alpha=0.75)
                lines[0].set_label(f"{label}:\n{sum(run['solved'])} of {len(run['solved'])} solved")
            axis.set(title=task, xlabel="updates")
            axis.set_ylim(0, 1.5 * axis.get_ylim()[1])  # room for the legend
            axis.locator_params(axis="x", nbins=4)
            axis.legend(loc="upper right")
        figure.axes[0].set_ylabel("E_total a sequence")


def draw_benchmark(report: dict[str, Any], picture: Path) -> None:
    """Cost against length and size, and the crossings."""
    lengths, sizes = report["lengths"], report["sizes"]
    steps, n = [row["steps"] for row in lengths], np.array([row["num_connections"] for row in sizes])
    with plotting.drawing(picture, plotting.PAGE_INCHES, 6) as figure:
        (by_length, by_size), (crossing, rest) = figure.subplots(2, 2)
        rest.axis("off")
        for name, label, colour in (("forward", "forward in time", ON), ("bptt", "back through time", OFF)):
            for axis, x, rows, count in ((by_length, steps, lengths, steps), (by_size, n, sizes, [1] * len(n))):
                times = {
                    key: [1e3 * row["seconds"][name][key] / c for row, c in zip(rows, count, strict=True)]
                    for key in ("median", "min", "max")
                }
                axis.plot(x, times["median"], color=colour, marker="o", ms=4, label=label)
                axis.fill_between(x, times["min"], times["max"], color=colour, alpha=0.2, lw=0)
        last = sizes[-1]["seconds"]["forward"]["median"] * 1e3
        law = n**2 * np.log2(n)
        by_size.plot(n, last * law / law[-1], color=plotting.INK, ls=":", label="law: n² log2 n")
        for key, label, colour in (
            ("memory", "more memory than p and q", ON),
            ("gradient_after_every_step", "slower, for a gradient\nafter every step", OFF),
        ):
            crossing.plot(n, [row["crossings"][key] for row in sizes], color=colour, marker="o", ms=4, label=label)
        by_length.set(title=f"a step, n = {report['num_connections']}", xlabel="time steps T", xscale="log")
        by_length.set_ylim(bottom=0)
        by_size.set(title="a step against n_conn", xlabel="connections n", xscale="log", yscale="log")
        crossing.set(title="back-propagation is, from T on, …", xlabel="connections n", xscale="log", yscale="log")
        by_length.set_ylabel("ms a step")
        crossing.set_ylabel("time steps T")
        # In the place of a fourth panel: no curve leaves room for a legend.
        above = rest.legend(*by_size.get_legend_handles_labels(), loc="upper left", title="above", alignment="left")
        rest.add_artist(above)
        rest.legend(*crossing.get_legend_handles_labels(), loc="lower left", title="on the left", alignment="left")


def benchmark() -> dict[str, Any]:
    """What ``benchmarks/introspective.py`` measured."""
    return json.loads((HERE / "benchmark.json").read_text())


def texts() -> pages.Texts:
    page = pages.DOCS / "results" / "introspective.md"
    report = benchmark()
    tables = {
        "tasks": main_table(),
        "minima": minima_table(),
        "lengths": lengths_table(report),
        "sizes": sizes_table(report),
    }
    return {page: pages.fill(page, "experiments.introspective.make_page", tables)}


def draw() -> None:
    draw_curves(PICTURES / "curves.png")
    draw_benchmark(benchmark(), PICTURES / "benchmark.png")
    for task in ("boolean", "rewrite"):
        traced = json.loads((HERE / f"trace_{task}.json").read_text())
        title = f"{task}, seed {traced['seed']}, after {traced['update']} updates"
        draw_trace(traced, PICTURES / f"trace_{task}.png", title)


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
