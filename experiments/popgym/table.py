"""The table and the picture of README.md in this folder: the runs' scores from their raw numbers, beside those
that are published.

    python -m experiments.popgym.table
    python -m experiments.popgym.table --check

A run's score is the best mean return of its curve (POPGym's MMER: the maximum over training of the mean episodic
return), over windows of 1,000 episodes; points before the first window is full do not count. Runs with other settings
than the recipes' are in ``settings/NAME/``.
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
BEFORE = STUDY.runs.with_name("settings") / "without_step"
"""Runs before memories saw the step of the episode: 8 heads, no ``beta_bias``, else as the study's."""
EARLIER = ", before"
WINDOW = 1000
"""Episodes of each point of a curve, ``stats_avg`` of the recipes."""
COLUMNS = 3
"""Panels side by side in the picture."""
SETTINGS = {
    "steps_64_epochs_4": "rollouts of 64, 4 epochs",
    "steps_64_epochs_4_rate_half": "rollouts of 64, 4 epochs, half the learning rate",
    "steps_64_epochs_4_rate_double": "rollouts of 64, 4 epochs, twice the learning rate",
    "steps_64_epochs_4_cpu": "rollouts of 64, 4 epochs, on a CPU",
    "steps_128_epochs_4": "rollouts of 128, 4 epochs (GRU, LSTM: twice the learning rate)",
    "steps_128_epochs_4_entropy": "rollouts of 128, 4 epochs, a tenth of the entropy bonus",
    "steps_128_epochs_4_lambda": "rollouts of 128, 4 epochs, λ .8 in place of .95",
    "steps_128_epochs_30": "rollouts of 128, 30 epochs, two fifths of the learning rate",
    "without_step": "rollouts of 128, 12 epochs",
    "heads_8": "the same; the step of the episode is seen, `beta_bias` -3",
}
"""What was tried before the settings were fixed, by the folder in ``settings/``."""
CHOSEN = "**the same, 4 heads in place of 8**"
"""What was chosen, as the last line of the table of settings."""
TUNED_ON = ("CountRecallEasy", "RepeatPreviousMedium")
"""The tasks on which the settings were chosen."""
PUBLISHED = {
    "AutoencodeEasy": (-0.283, -0.283), "AutoencodeMedium": (-0.425, -0.420), "AutoencodeHard": (-0.456, -0.448),
    "RepeatPreviousEasy": (1.0, 1.0), "RepeatPreviousMedium": (-0.315, 0.789), "RepeatPreviousHard": (-0.428, 0.191),
    "CountRecallEasy": (0.177, 0.509), "CountRecallMedium": (-0.528, -0.519), "CountRecallHard": (-0.475, -0.470),
    "ConcentrationHard": (-0.829, -0.829),
    "RepeatFirstEasy": (1.0, 1.0), "RepeatFirstMedium": (1.0, 1.0), "RepeatFirstHard": (0.940, 0.969),
    "MultiarmedBanditEasy": (0.619, 0.631), "MultiarmedBanditMedium": (0.538, 0.598),
    "MultiarmedBanditHard": (0.516, 0.574),
}  # fmt: skip
"""GRU, and the best of 13 models, after 15M steps: Morad et al., ICLR 2023 (second-hand transcription)."""
GRU_TWELVE = -0.284
"""The published GRU's mean over the twelve tasks (second-hand, as SHM's -.051 and FFM's -.242)."""
PUBLISHED_NAMES = ("GRU, published", "best of 13, published")
"""What tables and pictures call the two."""


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
    yield f"| task | memory | seed | million steps | score | {' | '.join(PUBLISHED_NAMES)} |"
    yield "|---" * 7 + "|"
    for run in _in_order(found):
        published = [f"{value:.3f}" for value in PUBLISHED.get(run["task"], ())] or ["–", "–"]
        score = "–" if pd.isna(run["score"]) else f"{run['score']:.3f}"
        cells = [run["task"], memories.label(run["recipe"]), str(run["seed"]), f"{run['frames'] / 1e6:.1f}", score]
        yield f"| {' | '.join([*cells, *published])} |"
    for (recipe, seed), runs in found[found["task"].isin(GROUPS["twelve"])].groupby(["recipe", "seed"]):
        if len(runs) == len(GROUPS["twelve"]):
            name, mean = memories.label(str(recipe)), runs["score"].mean()
            yield f"| **mean of the twelve** | {name} | {seed} | – | **{mean:.3f}** | {GRU_TWELVE:.3f} | – |"


def _in_order(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Runs by task, in the tasks' order, memory and seed."""
    order = {name: number for number, name in enumerate(GROUPS["all"])}
    rows: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    return sorted(rows, key=lambda run: (order[run["task"]], run["recipe"], run["seed"]))


def settings_lines() -> Iterator[str]:
    """Markdown: the runs with each of :data:`SETTINGS`, and with those that were fixed, on :data:`TUNED_ON`."""
    folder = STUDY.runs.with_name("settings")
    tried = {text: scores(folder / name) for name, text in SETTINGS.items() if (folder / name).is_dir()}
    tried[CHOSEN] = scores()
    columns = [(task, recipe) for task in TUNED_ON for recipe in ("srwm", "delta", "gru", "lstm")]
    columns = [column for column in columns if any(len(_of(found, *column)) for found in tried.values())]
    yield f"| settings | {' | '.join(f'{task}, {memories.label(recipe)}' for task, recipe in columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for text, found in tried.items():
        yield f"| {text} | {' | '.join(_cell(_of(found, *column)) for column in columns)} |"


def step_lines() -> Iterator[str]:
    """Markdown: tasks by memories, with the final settings, and :data:`BEFORE`."""
    final, before = scores(), scores(BEFORE)
    columns = [(found, recipe) for recipe in ("srwm", "gru") for found in (final, before)]
    columns = [(found, recipe) for found, recipe in columns if (found["recipe"] == recipe).any()]
    heads = [memories.label(recipe) + (EARLIER if found is before else "") for found, recipe in columns]
    yield f"| task | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for task in GROUPS["all"]:
        if task in set(final["task"]) & set(before["task"]):
            yield f"| {task} | {' | '.join(_cell(_of(found, task, recipe)) for found, recipe in columns)} |"


def _of(found: pd.DataFrame, task: str, recipe: str) -> pd.DataFrame:
    """The row of a memory's first seed on a task, if there is one."""
    return found[(found["task"] == task) & (found["recipe"] == recipe) & (found["seed"] == 1)]


def _cell(runs: pd.DataFrame) -> str:
    """A run's score, with the steps after which it ended where those are not the study's; a dash for no run."""
    if not len(runs):
        return "–"
    run = runs.iloc[0]
    early = "" if run["frames"] >= 0.99 * STUDY.frames else f" ({run['frames'] / 1e6:.1f}M)"
    return f"{run['score']:.3f}{early}"


def texts() -> pages.Texts:
    """README.md with its tables made anew."""
    return {
        README: pages.fill(
            README, SCRIPT, {"runs": lines(scores()), "steps": step_lines(), "settings": settings_lines()}
        )
    }


def draw(runs: Path = STUDY.runs) -> None:
    """A panel a task: each run's mean return over its steps, and what is published."""
    curves: dict[str, list[tuple[str, str, pd.DataFrame]]] = {}
    for folder in sorted(config.parent for place in (runs, BEFORE) for config in place.glob("*/config.yaml")):
        recipe, style = read_yaml(folder / "config.yaml")["recipe"], "--" if BEFORE in folder.parents else "-"
        for task, curve in pd.read_csv(folder / CURVES).groupby("game", sort=False):
            curves.setdefault(str(task), []).append((recipe, style, curve[curve["episodes"] >= WINDOW]))
    tasks = [task for task in GROUPS["all"] if task in curves]
    columns = min(len(tasks), COLUMNS)
    rows = -(-len(tasks) // columns)
    with plotting.drawing(PICTURE, plotting.PAGE_INCHES, 0.9 + 2 * rows) as figure:
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes in panels.flat[len(tasks) :]:
            axes.set_axis_off()
        for axes, task in zip(panels.flat, tasks, strict=False):
            for recipe, style, curve in curves[task]:
                label = memories.label(recipe) + (EARLIER if style == "--" else "")
                colour = memories.colour(recipe)
                axes.plot(curve["frames"] / 1e6, curve["mean_return"], style, color=colour, label=label)
            if task in PUBLISHED:
                for height, name, tone in zip(
                    PUBLISHED[task], PUBLISHED_NAMES, (memories.colour("gru"), "grey"), strict=True
                ):
                    axes.axhline(height, color=tone, linestyle=":", linewidth=1, label=name)
            axes.set_title(task)
        for axes in panels[:, 0]:
            axes.set_ylabel("mean return")
        for axes in panels[-1]:
            axes.set_xlabel("million steps")
        handles = {
            label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
