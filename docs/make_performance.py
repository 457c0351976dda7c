"""Makes the tables and the picture of performance.md from the raw numbers in performance/:
``python docs/make_performance.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

HERE = Path(__file__).parent
RAW = HERE / "performance"
PRECISIONS = {"bf16": "tab:blue", "fp32": "tab:orange"}


def op_table() -> str:
    """Milliseconds of both ops and what they are compared with, one row a shape and way."""
    lines = ["| op and shape | way | median, ms | min-max | ratio |", "|---|---|---|---|---|"]
    for result in json.loads((RAW / "op.json").read_text())["results"]:
        batch, steps, heads, dim = result["shape"]
        base = result["ms"]["triton, replayed"]["median"]
        for way, ms in result["ms"].items():
            ratio = "" if way.startswith("triton") else f"{ms['median'] / base:.0f}"
            lines.append(
                f"| {result['op']} B{batch} T{steps} H{heads} D{dim} | {way} | {ms['median']:.3f} "
                f"| {ms['min']:.3f}-{ms['max']:.3f} | {ratio} |"
            )
    return "\n".join(lines)


def slope(curves: pd.DataFrame) -> tuple[float, float]:
    """Frames a second from the second point with frames to the last, and the seconds between them."""
    points = curves.groupby("seconds")["frames"].max()
    points = points[points > 0].iloc[1:]
    seconds = points.index[-1] - points.index[0]
    return (points.iloc[-1] - points.iloc[0]) / seconds, seconds


def training_table() -> str:
    """Frames a second of whole training runs."""
    lines = ["| run | frames/s | measured over | start |", "|---|---|---|---|"]
    runs = {
        "six games, nine minutes, bf16": "nine_minutes.csv",
        "two games, bf16": "two_games_bf16_seed1.csv",
        "two games, float32": "two_games_fp32_seed1.csv",
    }
    for name, file in runs.items():
        curves = pd.read_csv(RAW / file)
        rate, seconds = slope(curves)
        start = curves[curves["frames"] > 0]["seconds"].min()
        lines.append(f"| {name} | {rate:,.0f} | {seconds:.0f} s | {start:.0f} s |")
    for name, file in {"2 workers": "training_2_workers.json", "3 workers": "training_3_workers.json"}.items():
        run = json.loads((RAW / file).read_text())["runs"]["srwm"][0]
        lines.append(
            f"| six games, asynchronous copies, {name} | {run['frames_per_second']:,.0f} "
            f"| {run['measured_seconds']:.0f} s | {run['start_seconds']:.0f} s |"
        )
    return "\n".join(lines)


def draw_precisions() -> None:
    """Learning curves in both precisions, over frames."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for precision, color in PRECISIONS.items():
        for file in sorted(RAW.glob(f"two_games_{precision}_seed*.csv")):
            curves = pd.read_csv(file)
            for axis, (game, points) in zip(axes, curves.groupby("game"), strict=True):
                axis.plot(points["frames"] / 1e6, points["mean_return"], color=color, label=precision)
                axis.set_title(game)
    for axis in axes:
        axis.set_xlabel("million frames")
        axis.set_ylabel("return, last 100 episodes")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(RAW / "precisions.png", dpi=110)
    plt.close(figure)


def main() -> None:
    draw_precisions()
    page = HERE / "performance.md"
    text = page.read_text()
    for name, table in (("op", op_table()), ("training", training_table())):
        begin, end = f"<!-- {name}: made by make_performance.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    page.write_text(text)


if __name__ == "__main__":
    main()
