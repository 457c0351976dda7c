"""Makes the table of fast.md and its picture from the raw numbers in fast/: ``python docs/results/make_fast.py``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from srwm_agents.evaluation.curves import plot_curves

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: made by make_fast.py -->", "<!-- end of table -->"


def mean_and_interval(row: pd.Series) -> str:
    return f"{row['return']:.2f} ({row['return_low']:.2f}, {row['return_high']:.2f})"


def table() -> str:
    """Random policy and agent side by side; a game counts as above when the 95 % intervals do not overlap."""
    random, agent = (pd.read_csv(HERE / "fast" / name).set_index("game") for name in ("random.csv", "agent.csv"))
    lines = [
        "| game | random policy | episodes | SRWM agent | episodes | normalised | intervals apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for game, row in agent.iterrows():
        other = random.loc[game]
        apart = "yes" if row["return_low"] > other["return_high"] else "no"
        lines.append(
            f"| {game} | {mean_and_interval(other)} | {other['episodes']} | {mean_and_interval(row)} | {row['episodes']} "
            f"| {row['normalised_score']:.3f} | {apart} |"
        )
    mean, random_mean = agent["normalised_score"].mean(), random.loc[agent.index, "normalised_score"].mean()
    lines.append(f"| mean | {random_mean:.3f} normalised | | {mean:.3f} normalised | | {mean:.3f} | |")
    return "\n".join(lines)


def main() -> None:
    plot_curves(HERE / "fast" / "curves.csv", HERE / "fast" / "learning_curves.png", "fast preset, SRWM, one H200")
    page = HERE / "fast.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
