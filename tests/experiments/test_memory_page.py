"""The page on memories, from runs that are made up: its tables, its picture, and what happens without runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import memory_page, pages
from experiments.adaptation import picture, table
from experiments.adaptation.regret import COLUMNS
from experiments.popgym.tasks import GROUPS
from experiments.runs import write_compressed, write_config

POPGYM = {"srwm": 0.3, "gru": 0.1, "feedforward": -0.2}
TASKS = ("RepeatFirstEasy", "CountRecallEasy")
REGRET = {"srwm": 10.0, "gru": 14.0, "small_srwm": 20.0}


def regret(policy: str, at_end: float) -> pd.DataFrame:
    steps = np.arange(1, 101)
    cumulative = at_end * steps / 100
    columns = (policy, steps, 1000, at_end / 100, cumulative, 0.2, 0.9 * steps - cumulative, 0.3, np.nan)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> memory_page.Places:
    tmp_path = tmp_path_factory.mktemp("runs")
    for recipe, score in POPGYM.items():
        for seed in (1, 2):
            folder = tmp_path / "popgym" / f"{recipe}_s{seed}"
            folder.mkdir(parents=True)
            write_config(folder, {"recipe": recipe, "seed": seed, "tasks": {}})
            curves = [
                pd.DataFrame(
                    {
                        "frames": [0, 1000, 2000],
                        "seconds": [0.0, 1.0, 2.0 * seed],
                        "game": task,
                        "episodes": [10, 2000, 3000],
                        "mean_return": [9.0, score + 0.1 * seed + i, score + i],
                    }
                )
                for i, task in enumerate(TASKS)
            ]
            write_compressed(folder / "curves.csv.xz", pd.concat(curves).to_csv(index=False))
    for recipe, at_end in REGRET.items():
        for seed in (1, 2):
            folder = tmp_path / "adaptation" / f"{recipe}_s{seed}"
            folder.mkdir(parents=True)
            write_config(folder, {"recipe": recipe, "seed": seed, "tasks": {}})
            both = pd.concat([regret("sampled", at_end + seed), regret("greedy", 99.0)]).assign(game="bandit_10_100")
            write_compressed(folder / "regret.csv.xz", both.to_csv(index=False))
    (tmp_path / "baselines").mkdir()
    players = pd.concat([regret("random", 40.0), regret("thompson", 13.0), regret("best", 0.0)])
    write_compressed(tmp_path / "baselines" / "bandit_10_100.csv.xz", players.to_csv(index=False))
    return memory_page.Places(
        popgym=tmp_path / "popgym",
        adaptation=tmp_path / "adaptation",
        baselines=tmp_path / "baselines",
        page=tmp_path / "memory.md",
        picture=tmp_path / "pictures" / "memories.png",
        steps=2000,
    )


def test_the_page_of_made_up_runs(places: memory_page.Places) -> None:
    ((page, text),) = memory_page.texts(places).items()
    assert page == places.page
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    by_name = {row[0]: row for row in rows}
    assert by_name["task"][:4] == ["task", "SRWM", "GRU", "Thompson"]  # the last table with tasks; small ones are out
    first = next(row for row in rows if row[0] == "RepeatFirstEasy")
    assert [cell.split()[0] for cell in first[1:4]] == ["0.450", "0.250", "-0.050"]
    assert first[4:] == ["1.000", "1.000"]
    mean = by_name["**mean of 2**"]
    assert [cell.split()[0] for cell in mean[1:]] == ["0.950", "0.750", "0.450", "0.589", "0.754"]
    assert "(" in mean[1]
    difference = next(row for row in rows if row[0] == "GRU" and row[1] == "2")
    assert difference[2].startswith("0.200 (")
    totals, regrets = [row for row in rows if row[0] == "10 arms, 100 pulls"]
    assert regrets[1] == "11.50 (11.00 to 12.00)"
    assert regrets[-2:] == ["13.00", "40.00"]
    assert totals[-1] == "83.5"  # the published one
    costs = next(row for row in rows if row[0] == "SRWM" and row[1] == "6,656")
    assert costs[-2:] == ["750 (500 to 1,000)", "–"]
    # Made again over what was written by hand: nothing changes, and the text stays.
    places.page.write_text(text + "\nA remark.\n")
    assert memory_page.texts(places)[places.page] == text + "\nA remark.\n"


def test_means_of_the_twelve_are_of_memories_that_have_them_all() -> None:
    rows = [("srwm", task, 1, 2000, 0.5) for task in GROUPS["twelve"]] + [("gru", GROUPS["twelve"][0], 1, 2000, 0.1)]
    scores = pd.DataFrame(rows, columns=["recipe", "task", "seed", "frames", "score"])
    found = memory_page.Found(scores, pd.DataFrame({"recipe": []}), pd.DataFrame())
    *_, last = memory_page.popgym_lines(found, 2000)
    assert last == "| **mean of the twelve** | 0.500 | – | -0.284 | – |"


def test_pictures_of_made_up_runs(places: memory_page.Places, tmp_path: Path) -> None:
    memory_page.draw(places)
    assert places.picture.stat().st_size > 5000
    found, players = table.agents(places.adaptation), table.baselines(places.baselines)
    picture.draw(tmp_path / "regret.png", found, players, ["bandit_10_100"], ["srwm", "small_srwm"])
    assert (tmp_path / "regret.png").stat().st_size > 5000


def test_runs_that_ended_early_are_marked_or_left_out(places: memory_page.Places) -> None:
    assert (
        "| RepeatFirstEasy | 0.450 (0.400 to 0.500) * |" in memory_page.texts(replace(places, steps=2100))[places.page]
    )
    assert " * |" not in memory_page.texts(places)[places.page]
    found = memory_page.read(replace(places, steps=2700))
    assert found.scores.empty
    assert len(found.agents) == len(memory_page.read(places).agents) > 0


def test_without_runs_there_is_no_page(tmp_path: Path) -> None:
    nothing = memory_page.Places(*[tmp_path / name for name in ("a", "b", "c")], page=tmp_path / "memory.md")
    assert memory_page.texts(nothing) == {}
    memory_page.draw(nothing)
    assert not list(tmp_path.iterdir())


def test_a_page_has_marks_for_all_of_its_tables() -> None:
    for name in ("popgym", "differences", "rewards", "regrets", "costs"):
        filled = pages.filled(memory_page.PAGE, memory_page.SCRIPT, {name: ["a line"]})
        assert "a line" in filled
