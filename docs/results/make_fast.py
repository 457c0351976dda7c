"""Makes the table of fast.md and its picture from the raw numbers in fast/: ``python docs/results/make_fast.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from envs import normalised_score
from srwm_agents.evaluation.curves import plot_curves

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: made by make_fast.py -->", "<!-- end of table -->"
WINDOWS = 10  # rows of curves.csv a game: the last 90 seconds; each is the mean over 100 episodes of its own
NORMAL = 1.96


def table() -> str:
    """Agent against random policy; a game counts as above where the difference's 95 % interval excludes zero."""
    curves = pd.read_csv(HERE / "fast" / "curves.csv")
    random = pd.read_csv(HERE / "fast" / "random.csv").set_index("game")
    evaluated = pd.read_csv(HERE / "fast" / "agent_200.csv").set_index("game")
    lines = [
        "| game | random policy | agent, last 1,000 training episodes "
        "| difference | above | agent, 200 episodes after |",
        "|---|---|---|---|---|---|",
    ]
    scores = []
    for game, other in random.iterrows():
        windows = curves[curves["game"] == game].tail(WINDOWS)
        assert windows["episodes"].diff().dropna().min() >= 100, "windows share episodes"
        means = windows["mean_return"]
        error = means.std(ddof=1) / np.sqrt(WINDOWS)
        random_error = (other["return_high"] - other["return_low"]) / (2 * NORMAL)
        difference, half = means.mean() - other["return"], NORMAL * np.hypot(error, random_error)
        scores.append(normalised_score(str(game), "easy", means.mean()))
        after = evaluated.loc[game]
        lines.append(
            f"| {game} | {other['return']:.2f} ± {NORMAL * random_error:.2f} "
            f"| {means.mean():.2f} ± {NORMAL * error:.2f} "
            f"| {difference:+.2f} ± {half:.2f} | {'yes' if difference > half else 'no'} "
            f"| {after['return']:.2f} ({after['return_low']:.2f}, {after['return_high']:.2f}) |"
        )
    normalised = random["normalised_score"].mean(), np.mean(scores), evaluated["normalised_score"].mean()
    lines.append("| mean, normalised | {:.3f} | {:.3f} | | | {:.3f} |".format(*normalised))
    return "\n".join(lines)


def main() -> None:
    plot_curves(HERE / "fast" / "curves.csv", HERE / "fast" / "learning_curves.png", "fast preset, SRWM, one H200")
    page = HERE / "fast.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
