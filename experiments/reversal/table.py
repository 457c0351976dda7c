"""The table and the picture of README.md in this folder, from the runs' raw numbers.

python -m experiments.reversal.table
python -m experiments.reversal.table --check
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from experiments import memories, pages
from experiments.recipes import read_yaml
from experiments.reversal.train import STUDY
from experiments.runs import CURVES
from srwm_agents import plotting

README = Path(__file__).parent / "README.md"
PICTURE = README.with_name("curves.png")
SCRIPT = "experiments.reversal.table"
FALLING = STUDY.runs.with_name("falling_rate")
"""Runs with a learning rate that falls to 0."""
GIVEN = {"": "nothing", "_bias": "bias", "_step": "step", "_step_bias": "step and bias"}
"""What a memory was given, by the end of its recipe's name."""
STYLES = {"": ":", "_bias": "-.", "_step": "--", "_step_bias": "-"}
"""Lines of the picture."""


def curves(runs: Path = STUDY.runs) -> dict[str, pd.DataFrame]:
    """Each recipe's curve with seed 1, its points of 1,000 episodes."""
    found = {}
    for config in sorted(runs.glob("*_s1/config.yaml")):
        curve = pd.read_csv(config.with_name(CURVES))
        found[read_yaml(config)["recipe"]] = curve[curve["episodes"] >= 1000]
    return found


def parts(recipe: str) -> tuple[str, str]:
    """A recipe's core, and the rest of its name."""
    core = recipe.split("_")[0]
    return core, recipe.removeprefix(core)


def lines(found: dict[str, pd.DataFrame]) -> Iterator[str]:
    """Markdown: what was given by memories, the mean return of the last 1,000 episodes."""
    cores = memories.ordered([parts(recipe)[0] for recipe in found])
    yield f"| given | {' | '.join(map(memories.label, cores))} |"
    yield "|---" * (len(cores) + 1) + "|"
    for ending, text in GIVEN.items():
        cells = [
            f"{found[core + ending]['mean_return'].iloc[-1]:.2f}" if core + ending in found else "–" for core in cores
        ]
        yield f"| {text} | {' | '.join(cells)} |"


def texts() -> pages.Texts:
    """README.md with its tables made anew."""
    return {README: pages.fill(README, SCRIPT, {"returns": lines(curves()), "falling": lines(curves(FALLING))})}


def draw() -> None:
    """Mean returns over steps: a colour a memory, a style what it was given."""
    with plotting.drawing(PICTURE, plotting.PAGE_INCHES, 3.6) as figure:
        axes = figure.subplots()
        for recipe, curve in curves().items():
            core, ending = parts(recipe)
            label = memories.label(core) + (f", {GIVEN[ending]}" if ending else "")
            axes.plot(
                curve["frames"] / 1000, curve["mean_return"], STYLES[ending], color=memories.colour(core), label=label
            )
        axes.set(xlabel="thousand steps", ylabel="mean return of 1,000 episodes", ylim=(-0.6, 1))
        figure.legend(loc="outside right center")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
