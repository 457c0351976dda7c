"""Draws the regret of memories and baselines over a trial, a panel a task; bands are the range of seeds.

    python -m experiments.adaptation.picture    # docs/pictures/adaptation/regret.png
    python -m experiments.adaptation.picture --recipes small_srwm,small_gru --tasks bandit_5_10 --out regret.png

Memories choose sampled actions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments import memories, pages
from experiments.adaptation.table import PLAYERS, SAMPLED, agents, baselines
from experiments.adaptation.tasks import TASKS
from srwm_agents import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = pages.PICTURES / "adaptation" / "regret.png"
SHOWN = ("random", "thompson", "psrl", "ucb1")
"""Baselines that are drawn."""
STYLES = {"random": ":", "thompson": "--", "psrl": "--", "ucb1": "-."}


def draw_task(axes: Axes, task: str, found: pd.DataFrame, players: pd.DataFrame, recipes: Sequence[str]) -> None:
    """Regret so far against pulls or episodes, labelled at the lines' ends.

    Args:
        axes: where.
        task: its name.
        found: of ``table.agents``.
        players: of ``table.baselines``.
        recipes: the memories to draw.
    """
    for name in [name for name in SHOWN if name in set(players[players["game"] == task]["policy"])]:
        curve = players[(players["game"] == task) & (players["policy"] == name)]
        axes.plot(curve["step"], curve["cumulative"], color=plotting.PALE, ls=STYLES[name], label=PLAYERS[name])
    for recipe in recipes:
        own = found[(found["game"] == task) & (found["recipe"] == recipe) & (found["policy"] == SAMPLED)]
        if own.empty:
            continue
        curves = own.groupby("step")["cumulative"].agg(["mean", "min", "max"])
        axes.fill_between(curves.index, curves["min"], curves["max"], color=memories.colour(recipe), alpha=0.2, lw=0)
        axes.plot(curves.index, curves["mean"], color=memories.colour(recipe), label=memories.label(recipe))
    axes.set(title=TASKS[task].title, xlabel="pull" if TASKS[task].is_bandit else "episode")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    plotting.label_lines(axes)


def draw(
    picture: Path, found: pd.DataFrame, players: pd.DataFrame, tasks: Sequence[str], recipes: Sequence[str]
) -> None:
    """A picture of some tasks, up to three beside each other; arguments as :func:`draw_task`."""
    columns = min(3, len(tasks))
    rows = -(-len(tasks) // columns)
    with plotting.drawing(picture, min(1 + 3.9 * columns, plotting.PAGE_INCHES), 3.4 * rows) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, task in zip(panels, tasks, strict=False):
            draw_task(axes, task, found, players, recipes)
        for axes in panels[len(tasks) :]:
            axes.set_axis_off()
        for axes in panels[::columns]:
            axes.set_ylabel("regret so far, expected reward")


def main(arguments: list[str] | None = None) -> int:
    """Draw; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="", help="comma-separated (default: all that have runs)")
    parser.add_argument("--recipes", default="", help="comma-separated (default: all that have runs)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="default: %(default)s")
    args = parser.parse_args(arguments)
    found = agents()
    if found.empty:
        parser.error("there are no runs: experiments.adaptation.train --collect")
    tasks = args.tasks.split(",") if args.tasks else [task for task in TASKS if task in set(found["game"])]
    recipes = args.recipes.split(",") if args.recipes else memories.ordered(list(found["recipe"]))
    for name, given, known in (("tasks", tasks, set(found["game"])), ("recipes", recipes, set(found["recipe"]))):
        if unknown := [text for text in given if text not in known]:
            parser.error(f"--{name} has {unknown[0]!r}, there are runs of: {', '.join(sorted(known))}")
    draw(args.out, found, baselines(), tasks, recipes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
