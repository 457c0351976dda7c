"""The command ``runs``: what lies in a ``train_dir``."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srwm_agents.command_line import OneLineParser, fail, program, reason, user_path
from srwm_agents.comparison.runs import RunError, Status, find_runs, status_of
from srwm_agents.display import make_console


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("runs"),
        description="List the runs in a folder, the latest first: what they are, whether they train now, how far they "
        "have come. Nothing is changed.",
        allow_abbrev=False,
    )
    parser.add_argument("--train_dir", type=user_path, default=Path("train_dir"), help="Where experiments lie")
    parser.add_argument("--json", action="store_true", help="Print a JSON array instead of a table")
    return parser


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """List runs as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    console = console or make_console()
    try:
        statuses = [status_of(run) for run in find_runs(args.train_dir)]
    except (RunError, OSError) as error:
        return fail(reason(error), "runs")
    statuses.sort(key=lambda status: status.saved_at or math.inf, reverse=True)
    now = time.time()
    if args.json:
        records = [_record(status, now) for status in statuses]
        console.print(json.dumps(records, indent=2), highlight=False, soft_wrap=True, markup=False)
    elif not statuses:
        console.print(f"no runs in {args.train_dir}", highlight=False, soft_wrap=True, markup=False)
    else:
        _print(console, statuses, now)
    return 0


def age(seconds: float) -> str:
    """A time span in its largest unit: "40 s", "12 min", "3 h", "5 d"."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _record(status: Status, now: float) -> dict[str, Any]:
    return {**asdict(status), "age_seconds": None if status.saved_at is None else round(now - status.saved_at, 1)}


def _print(console: Console, statuses: Sequence[Status], now: float) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("run", overflow="fold", min_width=10)
    table.add_column("core", no_wrap=True)
    table.add_column("plays", overflow="fold", min_width=7)
    table.add_column("state", no_wrap=True)
    for name in ("frames", "score", "saved", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    for status in statuses:
        texts = (status.name, status.core or "?", _shortened(status.plays or "?"), status.state)
        saved = "–" if status.saved_at is None else age(now - status.saved_at)
        seed = "–" if status.seed is None else str(status.seed)
        table.add_row(*map(Text, texts), _progress(status), _score(status), saved, seed)
    console.print(table)
    for status in statuses:
        if status.state == "damaged":
            console.print(Text(f"{status.name}: {status.detail}"), soft_wrap=True)
    console.print(Text(_legend(statuses)))


def _legend(statuses: Sequence[Status]) -> str:
    kinds = {status.score_is for status in statuses}
    scores = {
        "normalised": "mean normalised score in training",
        "return": "r: mean return in training",
        "accuracy": "%: accuracy on validation classes",
    }
    said = [text for kind, text in scores.items() if kind in kinds]
    updates = ["upd: updates"] if any(status.kind == "fewshot" for status in statuses) else []
    return "; ".join([*(["score: " + ", ".join(said)] if said else []), *updates, "saved: time since the last save"])


def _shortened(plays: str) -> str:
    """What a run plays, in a column's width."""
    games = plays.split(",")
    return plays if len(games) == 1 else f"{len(games)} games"


def _progress(status: Status) -> str:
    reached = "–" if status.frames is None else _count(status.frames)
    unit = " upd" if status.kind == "fewshot" else ""
    return reached + unit if status.of is None else f"{reached}/{_count(status.of)}{unit}"


def _count(number: int) -> str:
    """1530000 -> 1.5M, 300000000 -> 300M."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f}".removesuffix(".0") + letter
    return str(number)


def _score(status: Status) -> str:
    if status.score is None:
        return "–"
    return {
        "normalised": f"{status.score:.3f}",
        "return": f"{status.score:.1f} r",
        "accuracy": f"{100 * status.score:.1f} %",
    }[status.score_is or "return"]
