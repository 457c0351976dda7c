"""The result of an evaluation as a table on the screen, as CSV and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from srwm_agents.files import write_together
from srwm_agents.report_names import report_name


def games_table(games: pd.DataFrame, title: str) -> Table:
    """A row a game and split: mean return with its interval, raw and normalised, and n, the number of episodes."""
    scored = bool(games["normalised_score"].notna().any())  # as only Procgen's games are
    score = ["norm.", "95 % interval"] if scored else []
    table = _table(title, ["split", "game"], ["return", "95 % interval", *score, "n"])
    last = None
    for row in games.to_dict("records"):
        if last is not None and row["split"] != last:
            table.add_section()
        table.add_row(
            "" if row["split"] == last else str(row["split"]),
            str(row["game"]),
            f"{row['return']:.2f}",
            _interval(row, "return", 2),
            *([f"{row['normalised_score']:.3f}", _interval(row, "normalised_score", 3)] if scored else []),
            str(row["episodes"]),
        )
        last = row["split"]
    return table


def aggregate_table(aggregates: pd.DataFrame) -> Table:
    """A row a split: mean and interquartile mean of the normalised score over the games."""
    numbers = ["mean", "95 % interval", "IQM", "95 % interval", "n"]
    table = _table("normalised score over games", ["split"], numbers)
    for row in aggregates.to_dict("records"):
        table.add_row(
            str(row["split"]),
            f"{row['mean']:.3f}",
            _interval(row, "mean", 3),
            f"{row['iqm']:.3f}",
            _interval(row, "iqm", 3),
            str(row["episodes"]),
        )
    return table


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with null where a number is missing: JSON has no NaN."""
    return json.loads(frame.to_json(orient="records") or "[]")


def _table(title: str, words: list[str], numbers: list[str]) -> Table:
    table = Table(title=Text(title), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in words:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _interval(row: dict[Any, Any], name: str, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "–" if pd.isna(low) else f"{low:.{digits}f}, {high:.{digits}f}"


def write_reports(
    folder: Path,
    name: str,
    episodes: pd.DataFrame,
    games: pd.DataFrame,
    aggregates: pd.DataFrame,
    about: dict[str, Any],
) -> list[Path]:
    """Write ``name.csv`` (a row a game and split), ``name_episodes.csv`` (a row an episode) and ``name.json`` (all).

    Where ``name.json`` is, all three are of one evaluation. If the one that is there has more episodes, it stays, and
    these files are called ``name_of_N`` (:func:`srwm_agents.report_names.report_name`).
    """
    name = report_name(folder, name, "games", len(episodes))
    content = {
        **about,
        "games": _records(games),
        "aggregate": _records(aggregates),
    }
    return write_together(
        {
            folder / f"{name}.csv": games.to_csv(index=False),
            folder / f"{name}_episodes.csv": episodes.to_csv(index=False),
            folder / f"{name}.json": json.dumps(content, indent=2) + "\n",
        }
    )
