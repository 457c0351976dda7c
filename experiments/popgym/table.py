"""The table of scores from the runs' raw numbers, and the published ones beside it.

    python -m experiments.popgym.table

A run's score is the best mean return of its curve (POPGym's MMER: the maximum over training of the mean episodic
return), over windows of 1,000 episodes; points before the first window is full do not count. A cell is the mean over
seeds, with their smallest and largest.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.popgym.tasks import GROUPS
from experiments.popgym.train import STUDY
from experiments.recipes import read_yaml
from experiments.runs import CURVES

WINDOW = 1000
"""Episodes of each point of a curve, ``stats_avg`` of the recipes."""
PUBLISHED = {
    "AutoencodeEasy": (-0.283, -0.283), "AutoencodeMedium": (-0.425, -0.420), "AutoencodeHard": (-0.456, -0.448),
    "RepeatPreviousEasy": (1.0, 1.0), "RepeatPreviousMedium": (-0.315, 0.789), "RepeatPreviousHard": (-0.428, 0.191),
    "CountRecallEasy": (0.177, 0.509), "CountRecallMedium": (-0.528, -0.519), "CountRecallHard": (-0.475, -0.470),
    "RepeatFirstEasy": (1.0, 1.0), "RepeatFirstMedium": (1.0, 1.0), "RepeatFirstHard": (0.940, 0.969),
    "MultiarmedBanditEasy": (0.619, 0.631), "MultiarmedBanditMedium": (0.538, 0.598),
    "MultiarmedBanditHard": (0.516, 0.574),
}  # fmt: skip
"""GRU, and the best of 13 models, after 15M steps: Morad et al., ICLR 2023 (second-hand transcription)."""


def score(curve: pd.DataFrame) -> float:
    """The score of one run's curve, rows in order; NaN where it has no full window."""
    full = curve[curve["episodes"] >= WINDOW]
    return float(full["mean_return"].max()) if len(full) else float("nan")


def scores(runs: Path = STUDY.runs) -> pd.DataFrame:
    """Columns recipe, task, seed, frames and score, a row a run."""
    rows = []
    for folder in sorted(config.parent for config in runs.glob("*/config.yaml")):
        config, curves = read_yaml(folder / "config.yaml"), pd.read_csv(folder / CURVES)
        for task, curve in curves.groupby("game", sort=False):
            rows.append((config["recipe"], task, config["seed"], int(curve["frames"].iloc[-1]), score(curve)))
    return pd.DataFrame(rows, columns=["recipe", "task", "seed", "frames", "score"])


def table(found: pd.DataFrame) -> str:
    """Markdown: tasks by recipes, means over seeds."""
    recipes = list(dict.fromkeys(found["recipe"]))
    lines = [
        f"| task | {' | '.join(recipes)} | GRU, published | best of 13, published |",
        "|---|" + "---|" * (len(recipes) + 2),
    ]
    for task in [name for name in GROUPS["all"] if name in set(found["task"])]:
        cells = []
        for recipe in recipes:
            sample = found[(found["task"] == task) & (found["recipe"] == recipe)]["score"].dropna()
            cells.append("–" if sample.empty else _cell(sample))
        published = [f"{value:.3f}" for value in PUBLISHED[task]] if task in PUBLISHED else ["–", "–"]
        lines.append(f"| {task} | {' | '.join([*cells, *published])} |")
    return "\n".join(lines)


def _cell(sample: pd.Series) -> str:
    mean = f"{sample.mean():.3f}"
    return mean if len(sample) == 1 else f"{mean} ({sample.min():.3f} to {sample.max():.3f}, {len(sample)} seeds)"


def main() -> int:
    """Print the table; returns the exit status."""
    found = scores()
    if found.empty:
        print(f"no runs in {STUDY.runs}")
        return 1
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
