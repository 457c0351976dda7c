"""Makes memory.md in docs/results/ and its picture from the runs in experiments/popgym/ and experiments/adaptation/.

    python -m experiments.memory_page
    python -m experiments.memory_page --check

The first time the page is begun from :data:`PAGE`; after that only its tables are made anew, so that what is said of
them can be written by hand. Without runs there is no page. Runs of recipes whose names begin with ``small_``, which
learned on a CPU, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments import memories, pages
from experiments.adaptation import picture
from experiments.adaptation import table as regrets
from experiments.adaptation.tasks import TASKS
from experiments.adaptation.train import STUDY as ADAPTATION
from experiments.popgym import table as popgym
from experiments.popgym.tasks import GROUPS
from experiments.popgym.train import STUDY as POPGYM
from experiments.runs import CURVES
from srwm_agents import plotting

SCRIPT = "experiments.memory_page"
EARLY = " *"
"""Marks scores of runs that ended early."""
PAGE = f"""# Which memory

Raw numbers: [`experiments/popgym/`](../../experiments/popgym) and
[`experiments/adaptation/`](../../experiments/adaptation); tables and pictures are made from them by
`python -m {SCRIPT}`. A number in brackets is a 95 % bootstrap interval over training seeds, where there are several.

![Left: scores on POPGym; right: regret in new bandits](../pictures/memory/memories.png)

## POPGym

A run's score is its best mean return over 1,000 episodes of training. Higher is better. The published scores (Morad et
al., 2023) are second-hand transcriptions.

<!-- popgym: made by {SCRIPT} -->
<!-- end of popgym -->

<!-- differences: made by {SCRIPT} -->
<!-- end of differences -->

## Bandits and tabular MDPs in context

The mean total reward of 1,000 trials in new problems, actions drawn from the policy; RL² is from Duan et al., 2016,
second-hand.

<!-- rewards: made by {SCRIPT} -->
<!-- end of rewards -->

The regret at the end of a trial, in expected reward; lower is better.

<!-- regrets: made by {SCRIPT} -->
<!-- end of regrets -->

## What a memory costs

State and parameters of one layer of width 128 with 8 heads, and its time on one CPU thread by the GRU's
([cores](../cores.md#what-they-cost)); steps/s of whole training runs, the median of those above and their range (runs
may have shared a GPU).

<!-- costs: made by {SCRIPT} -->
<!-- end of costs -->
"""


@dataclass(frozen=True)
class Places:
    """Where runs are read and the page is written; tests have others."""

    popgym: Path = POPGYM.runs
    adaptation: Path = ADAPTATION.runs
    baselines: Path = regrets.BASELINES
    costs: Path = pages.ROOT / "experiments" / "performance" / "cores.json"
    page: Path = pages.DOCS / "results" / "memory.md"
    picture: Path = pages.PICTURES / "memory" / "memories.png"
    steps: float = POPGYM.frames
    """Of a whole run on POPGym."""
    enough: float = 0.75
    """Runs that ended before this part of the steps are left out; those that ended later, but early, are marked."""


@dataclass(frozen=True)
class Found:
    """The runs of both studies."""

    scores: pd.DataFrame
    """POPGym's: recipe, task, seed, frames, score."""
    agents: pd.DataFrame
    """Adaptation's, as ``adaptation.table.agents`` has them."""
    players: pd.DataFrame
    """The baselines' regret."""

    @property
    def recipes(self) -> list[str]:
        """All memories, in the order of columns."""
        return memories.ordered([*self.scores["recipe"], *self.agents["recipe"]])


def read(places: Places) -> Found:
    """Read all runs but the small ones, and those on POPGym that ended long before their last step."""
    scores, agents = popgym.scores(places.popgym), regrets.agents(places.adaptation)
    scores, agents = _without_small(scores), _without_small(agents)
    long = scores[scores["frames"] >= places.enough * places.steps]
    return Found(long.dropna(subset=["score"]), agents, regrets.baselines(places.baselines))


def _without_small(table: pd.DataFrame) -> pd.DataFrame:
    return table[np.array([not str(recipe).startswith("small_") for recipe in table["recipe"]], bool)]


def shared(scores: pd.DataFrame, recipes: Sequence[str]) -> list[str]:
    """The tasks that each of some memories has runs of."""
    sets = [set(scores[scores["recipe"] == recipe]["task"]) for recipe in recipes]
    return [task for task in GROUPS["all"] if sets and all(task in tasks for tasks in sets)]


def matrix(scores: pd.DataFrame, recipe: str, tasks: Sequence[str]) -> npt.NDArray[np.float64]:
    """Scores [seeds, tasks] of a memory; of the seeds that have all of the tasks, else the first runs of each task."""
    wide = scores[scores["recipe"] == recipe].pivot_table(index="seed", columns="task", values="score")[list(tasks)]
    whole = wide.dropna()
    if len(whole):
        return whole.to_numpy(float)
    return np.array([[wide[task].dropna().iloc[0] for task in tasks]])


def popgym_lines(found: Found, steps: float) -> Iterator[str]:
    """Tasks by memories, with the published scores; last, means over the tasks that all memories have, and those over
    the twelve tasks of the study of memories that have all of these. Runs of fewer than ``steps`` are marked.
    """
    recipes = memories.ordered(list(found.scores["recipe"]))
    yield f"| task | {' | '.join([*map(memories.label, recipes), *popgym.PUBLISHED_NAMES])} |"
    yield "|---" * (len(recipes) + 3) + "|"
    for task in [name for name in GROUPS["all"] if name in set(found.scores["task"])]:
        cells = []
        for recipe in recipes:
            rows = found.scores[(found.scores["task"] == task) & (found.scores["recipe"] == recipe)]
            sample = rows["score"].to_numpy(float)[:, None]
            early = EARLY if (rows["frames"] < 0.99 * steps).any() else ""
            cells.append(memories.cell(memories.estimate(sample)) + early if len(sample) else "–")
        published = [f"{value:.3f}" for value in popgym.PUBLISHED.get(task, ())] or ["–", "–"]
        yield f"| {' | '.join([task, *cells, *published])} |"
    tasks, twelve = shared(found.scores, recipes), GROUPS["twelve"]
    if len(tasks) > 1:
        means = [memories.cell(memories.estimate(matrix(found.scores, recipe, tasks))) for recipe in recipes]
        published = [
            f"{np.mean([popgym.PUBLISHED[task][i] for task in tasks]):.3f}"
            if all(task in popgym.PUBLISHED for task in tasks)
            else "–"
            for i in range(2)
        ]
        yield f"| **mean of {len(tasks)}** | {' | '.join([*means, *published])} |"
    have = {recipe: set(twelve) <= set(found.scores[found.scores["recipe"] == recipe]["task"]) for recipe in recipes}
    if any(have.values()) and len(tasks) != len(twelve):
        whole = [
            memories.estimate(matrix(found.scores, recipe, twelve)) if have[recipe] else None for recipe in recipes
        ]
        cells = ["–" if mean is None else memories.cell(mean) for mean in whole]
        yield f"| **mean of the twelve** | {' | '.join(cells)} | {popgym.GRU_TWELVE:.3f} | – |"


def difference_lines(found: Found, of: str = "srwm") -> Iterator[str]:
    """A table: what ``of`` has more than each other memory, over the tasks that both have."""
    others = [recipe for recipe in memories.ordered(list(found.scores["recipe"])) if recipe != of]
    if of not in set(found.scores["recipe"]) or not others:
        return
    yield f"| {memories.label(of)} less | tasks | mean difference (95 % interval) |"
    yield "|---|---|---|"
    for other in others:
        tasks = shared(found.scores, [of, other])
        if tasks:
            pair = (matrix(found.scores, of, tasks), matrix(found.scores, other, tasks))
            found_difference = memories.with_interval(lambda x, y: memories.mean(x) - memories.mean(y), *pair)
            yield f"| {memories.label(other)} | {len(tasks)} | {memories.cell(found_difference)} |"


def speeds(runs: Path) -> dict[str, list[float]]:
    """Steps a second of each training run, by recipe, from the first to the last row of its curve."""
    rates: dict[str, list[float]] = {}
    for file in sorted(runs.glob(f"*/{CURVES}")):
        recipe = popgym.read_yaml(file.with_name("config.yaml"))["recipe"]
        for _, curve in pd.read_csv(file).groupby("game", sort=False):
            frames, seconds = (float(curve[name].iloc[-1] - curve[name].iloc[0]) for name in ("frames", "seconds"))
            if seconds > 0:
                rates.setdefault(recipe, []).append(frames / seconds)
    return rates


def cost_lines(found: Found, places: Places) -> Iterator[str]:
    """Memories by state, parameters, CPU time and steps/s."""
    costs: dict[str, Any] = json.loads(places.costs.read_text())
    rates = [speeds(places.popgym), speeds(places.adaptation)]
    works = list(costs["results"])
    heads = [f"{work}, by GRU" for work in works]
    yield f"| memory | state | parameters | {' | '.join(heads)} | POPGym, steps/s | bandits and MDPs, steps/s |"
    yield "|---" * (len(works) + 5) + "|"
    for recipe in found.recipes:
        if recipe not in costs["state_size"]:
            continue
        cells = [memories.label(recipe), f"{costs['state_size'][recipe]:,}", f"{costs['parameters'][recipe]:,}"]
        cells += [f"{costs['results'][work][recipe]['ratio']:.2f}" for work in works]
        for study in rates:
            of = study.get(recipe, [])
            cells.append(f"{np.median(of):,.0f} ({min(of):,.0f} to {max(of):,.0f})" if of else "–")
        yield f"| {' | '.join(cells)} |"


def texts(places: Places) -> pages.Texts:
    """The page with its tables; nothing where there are no runs."""
    found = read(places)
    if not found.recipes:
        return {}
    recipes = memories.ordered(list(found.agents["recipe"]))
    tables = {
        "popgym": popgym_lines(found, places.steps) if len(found.scores) else ["No runs yet."],
        "differences": difference_lines(found),
        "rewards": regrets.lines(found.agents, found.players, "total", recipes) if recipes else ["No runs yet."],
        "regrets": regrets.lines(found.agents, found.players, "cumulative", recipes) if recipes else [],
        "costs": cost_lines(found, places),
    }
    before = places.page.read_text() if places.page.is_file() else PAGE
    return {places.page: pages.filled(before, SCRIPT, tables)}


def draw(places: Places) -> None:
    """Scores on POPGym on the left, the regret of one task on the right; a study without runs has no panel."""
    found = read(places)
    tasks = [task for task in ("bandit_10_100", *TASKS) if task in set(found.agents["game"])]
    recipes = memories.ordered(list(found.scores["recipe"]))
    number = bool(recipes) + bool(tasks)
    if not number:
        return
    height = max(4.0, 1 + 0.4 * found.scores["task"].nunique())
    with plotting.drawing(places.picture, 1 + 4.6 * number, height) as figure:
        panels = list(figure.subplots(1, number, squeeze=False).flatten())
        if recipes:
            _draw_scores(panels.pop(0), found.scores, recipes)
        if tasks:
            own = memories.ordered(list(found.agents["recipe"]))
            picture.draw_task(panels[0], tasks[0], found.agents, found.players, own)
            panels[0].set_ylabel("regret so far, expected reward")


def _draw_scores(axes: Any, scores: pd.DataFrame, recipes: Sequence[str]) -> None:
    """A row a task, a dot and its interval for each memory that has run it, and what is published."""
    tasks = [task for task in GROUPS["all"] if task in set(scores["task"])]
    for row, task in enumerate(reversed(tasks)):
        for published, marker, name in zip(popgym.PUBLISHED.get(task, ()), "|x", popgym.PUBLISHED_NAMES, strict=False):
            axes.plot(published, row, marker, color=plotting.INK, alpha=0.6, label=name)
        for place, recipe in enumerate(recipes):
            own = scores[(scores["task"] == task) & (scores["recipe"] == recipe)]["score"].to_numpy(float)
            if not len(own):
                continue
            of, height = memories.estimate(own[:, None]), row + 0.5 * (0.5 - (place + 0.5) / len(recipes))
            if not np.isnan(of.low):
                axes.plot([of.low, of.high], [height, height], color=memories.colour(recipe))
            axes.plot(of.value, height, "o", color=memories.colour(recipe), label=memories.label(recipe))
    axes.set_yticks(range(len(tasks)), tasks[::-1])
    axes.set(title="POPGym", xlabel="mean return of the best 1,000 episodes", xlim=(-1.05, 1.05))
    axes.set_ylim(-0.6, len(tasks) - 0.4)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    axes.legend(handles.values(), handles.keys(), loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, lambda: texts(Places()), lambda: draw(Places())))
