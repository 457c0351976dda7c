"""Makes the table and the picture of docs/results/fast.md from the run in this folder.

python -m experiments.fast.make_page
python -m experiments.fast.make_page --check
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments import pages
from experiments.runs import read_summary
from srwm_agents.envs import normalised_score
from srwm_agents.evaluation.curves import plot_curves

HERE = Path(__file__).parent
WINDOWS = 10  # rows of curves.csv a game: the last 90 seconds; each is the mean over 100 episodes of its own
NORMAL = 1.96


def table() -> str:
    """Agent against random policy; a game counts as above where the difference's 95 % interval excludes zero."""
    curves = pd.read_csv(HERE / "curves.csv")
    summary = read_summary(HERE)
    random, evaluated = (summary[stage]["sampled"].set_index("game") for stage in ("random", "last"))
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
        after = evaluated.loc[str(game)]
        lines.append(
            f"| {game} | {other['return']:.2f} ± {NORMAL * random_error:.2f} "
            f"| {means.mean():.2f} ± {NORMAL * error:.2f} "
            f"| {difference:+.2f} ± {half:.2f} | {'yes' if difference > half else 'no'} "
            f"| {after['return']:.2f} ({after['return_low']:.2f}, {after['return_high']:.2f}) |"
        )
    normalised = random["normalised_score"].mean(), np.mean(scores), evaluated["normalised_score"].mean()
    lines.append("| mean, normalised | {:.3f} | {:.3f} | | | {:.3f} |".format(*normalised))
    return "\n".join(lines)


def texts() -> pages.Texts:
    page = pages.DOCS / "results" / "fast.md"
    return {page: pages.fill(page, "experiments.fast.make_page", {"table": table()})}


def draw() -> None:
    picture = pages.PICTURES / "fast" / "learning_curves.png"
    plot_curves(HERE / "curves.csv", picture, "fast preset, SRWM, one H200")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
