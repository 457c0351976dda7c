"""The tables of rewards and regrets of README.md in this folder, from the runs' raw numbers and the baselines'.

    python -m experiments.adaptation.table
    python -m experiments.adaptation.table --check

A memory's cell is the mean over seeds, with a bootstrap interval where there are several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments import memories, pages
from experiments.adaptation.regret import BASELINES
from experiments.adaptation.tasks import PUBLISHED, TASKS
from experiments.adaptation.train import STUDY
from experiments.recipes import read_yaml

README = Path(__file__).with_name("README.md")
SCRIPT = "experiments.adaptation.table"
SAMPLED = "sampled"
"""The policy of an agent that is compared: as the paper's, actions are drawn."""
PLAYERS = {
    "ucb1": "UCB1",
    "thompson": "Thompson",
    "psrl": "PSRL",
    "epsilon_greedy": "ε-greedy",
    "greedy": "greedy",
    "random": "random",
}
"""Baselines in tables and pictures."""


def agents(runs: Path = STUDY.runs) -> pd.DataFrame:
    """The regret of all runs' agents, a row a step: the columns of ``regret.py``'s tables, and game, recipe, seed."""
    tables = []
    for file in sorted(runs.glob("*/regret.csv.xz")):
        config = read_yaml(file.with_name("config.yaml"))
        # Recipes long_… train the memories of small_… on longer trials.
        recipe = config["recipe"].replace("long_", "small_")
        tables.append(pd.read_csv(file).assign(recipe=recipe, seed=config["seed"]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["game", "recipe", "seed"])


def baselines(folder: Path = BASELINES) -> pd.DataFrame:
    """The baselines' regret, a row a step: the columns of ``regret.py``'s tables, and game."""
    tables = [pd.read_csv(file).assign(game=file.name.partition(".")[0]) for file in sorted(folder.glob("*.csv.xz"))]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["game", "policy"])


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each trial's last step."""
    keys = [column for column in ("game", "recipe", "seed", "policy") if column in table]
    return table.groupby(keys, sort=False).tail(1)


def lines(found: pd.DataFrame, players: pd.DataFrame, column: str, recipes: Sequence[str]) -> Iterator[str]:
    """A table: tasks by memories and baselines.

    Args:
        found: of :func:`agents`.
        players: of :func:`baselines`.
        column: "total" (with the paper's RL²) or "cumulative".
        recipes: the memories.
    """
    ours = at_end(found[found["policy"] == SAMPLED]) if len(found) else found
    theirs = at_end(players) if len(players) else players
    tasks = [task for task in TASKS if task in set(ours["game"])]
    known = [name for name in PLAYERS if name in set(theirs[theirs["game"].isin(tasks)]["policy"])]
    published = column == "total"
    head = ["task", *map(memories.label, recipes), *(PLAYERS[name] for name in known)]
    yield f"| {' | '.join([*head, *(['RL² (GRU), published'] if published else [])])} |"
    yield "|---" * (len(head) + published) + "|"
    for task in tasks:
        cells = [TASKS[task].title]
        for recipe in recipes:
            sample = ours[(ours["game"] == task) & (ours["recipe"] == recipe)][column].to_numpy(float)
            cells.append(memories.cell(memories.estimate(sample[:, None]), 2) if len(sample) else "–")
        for name in known:
            row = theirs[(theirs["game"] == task) & (theirs["policy"] == name)]
            cells.append(f"{row[column].iloc[0]:.2f}" if len(row) else "–")
        if published:
            cells.append(f"{PUBLISHED[task]['rl2']}")
        yield f"| {' | '.join(cells)} |"


def baseline_lines(players: pd.DataFrame) -> Iterator[str]:
    """A table: the baselines' total rewards beside the paper's."""
    last = at_end(players)
    yield "| task | player | number | total reward | standard error | published |"
    yield "|---|---|---|---|---|---|"
    for task in [name for name in TASKS if name in set(last["game"])]:
        for name in PLAYERS:
            for row in last[(last["game"] == task) & (last["policy"] == name)].to_dict("records"):
                number = "" if np.isnan(row["number"]) else f"{row['number']:g}"
                paper = PUBLISHED[task].get(name)
                cells = (TASKS[task].title, PLAYERS[name], number, f"{row['total']:.2f}", f"{row['total_error']:.2f}")
                yield f"| {' | '.join(cells)} | {'–' if paper is None else paper} |"


def texts() -> pages.Texts:
    """README.md with its tables made anew."""
    found, players = agents(), baselines()
    recipes = memories.ordered(list(found["recipe"]))
    tables = {
        "rewards": lines(found, players, "total", recipes),
        "regrets": lines(found, players, "cumulative", recipes),
        "baselines": baseline_lines(players),
    }
    return {README: pages.fill(README, SCRIPT, tables)}


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, lambda: None))
