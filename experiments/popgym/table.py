"""The table and the picture of README.md in this folder: the runs' scores from their raw numbers, beside those
that are published.

    python -m experiments.popgym.table
    python -m experiments.popgym.table --check

A run's score is the best mean return of its curve (POPGym's MMER: the maximum over training of the mean episodic
return), over windows of 1,000 episodes; points before the first window is full do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import memories, pages
from experiments.popgym.tasks import GROUPS
from experiments.popgym.train import STUDY
from experiments.recipes import read_yaml
from experiments.runs import CURVES
from srwm_agents import plotting

README = Path(__file__).parent / "README.md"
PICTURE = README.with_name("curves.png")
SCRIPT = "experiments.popgym.table"
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


def lines(found: pd.DataFrame) -> Iterator[str]:
    """Markdown: a row a run, with the published scores."""
    yield "| task | memory | seed | million steps | score | GRU, published | best of 13, published |"
    yield "|---" * 7 + "|"
    order = {name: number for number, name in enumerate(GROUPS["all"])}
    rows: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    for run in sorted(rows, key=lambda run: (order[run["task"]], run["recipe"], run["seed"])):
        published = [f"{value:.3f}" for value in PUBLISHED.get(run["task"], ())] or ["–", "–"]
        score = "–" if pd.isna(run["score"]) else f"{run['score']:.3f}"
        cells = [run["task"], memories.label(run["recipe"]), str(run["seed"]), f"{run['frames'] / 1e6:.1f}", score]
        yield f"| {' | '.join([*cells, *published])} |"


def texts() -> pages.Texts:
    """README.md with its table made anew."""
    return {README: pages.fill(README, SCRIPT, {"runs": lines(scores())})}


def draw(runs: Path = STUDY.runs) -> None:
    """A panel a task: each run's mean return over its steps, and what is published."""
    curves: dict[str, list[tuple[str, pd.DataFrame]]] = {}
    for folder in sorted(config.parent for config in runs.glob("*/config.yaml")):
        recipe = read_yaml(folder / "config.yaml")["recipe"]
        for task, curve in pd.read_csv(folder / CURVES).groupby("game", sort=False):
            curves.setdefault(str(task), []).append((recipe, curve[curve["episodes"] >= WINDOW]))
    tasks = [task for task in GROUPS["all"] if task in curves]
    with plotting.drawing(PICTURE, plotting.PAGE_INCHES, 2.9) as figure:
        panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            for recipe, curve in curves[task]:
                label = memories.label(recipe)
                axes.plot(curve["frames"] / 1e6, curve["mean_return"], color=memories.colour(recipe), label=label)
            gru, best = PUBLISHED[task]
            axes.axhline(gru, color=memories.colour("gru"), linestyle=":", linewidth=1, label="GRU, published")
            axes.axhline(best, color="grey", linestyle=":", linewidth=1, label="best of 13, published")
            axes.set(title=task, xlabel="million steps")
        panels[0].set_ylabel("mean return")
        handles = {
            label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
