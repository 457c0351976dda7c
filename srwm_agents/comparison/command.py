"""The command ``compare``: runs or groups of runs beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from srwm_agents.command_line import OneLineParser, fail, program, reason, say, user_path, writable_folder
from srwm_agents.comparison.groups import games_in_common, parse_groups
from srwm_agents.comparison.report import (
    INTERVAL,
    Comparison,
    compare,
    not_recorded_note,
    summary_rows,
    table_caption,
    write_comparison,
)
from srwm_agents.comparison.runs import RunError
from srwm_agents.display import make_console

MAX_SEED = 2**31 - 1
WIDEST = 30
"""Characters of a setting's value on the screen."""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = OneLineParser(
        prog=program("compare"),
        description="Compare runs, or groups of runs with several seeds: learning curves, scores with intervals, and "
        "what differs in their settings.",
        epilog="examples: compare six_games lstm; compare srwm='srwm_seed*' lstm='lstm_seed*'; compare a=one,two b=six",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        metavar="EXP",
        help="A run by its name in --train_dir, the path of its folder, or a pattern of such; LABEL=EXP,EXP is a group "
        "of runs, which usually differ in their seeds",
    )
    add("--train_dir", type=user_path, default=Path("train_dir"), help="Where experiments lie")
    add("--games", help="Some of the games, comma-separated; default: all, which must then be the same in all runs")
    add("--at_frames", type=float, help="Compare scores at this number of frames; default: the most that all runs have")
    add("--seed", type=int, default=0, help="Of the bootstrap")
    add("--output", type=user_path, help="Folder of pictures and tables; default: comparison/ in --train_dir")
    return parser


def main(argv: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Compare as the command line says; returns the exit status. Errors are one line on stderr."""
    args = make_parser().parse_args(argv)
    try:
        return _compare(args, console or make_console())
    except (RunError, OSError) as error:
        return fail(reason(error), "compare")
    except KeyboardInterrupt:
        say(f"{program('compare')}: interrupted, nothing was written")
        return 130


def _compare(args: argparse.Namespace, console: Console) -> int:
    if not 0 <= args.seed <= MAX_SEED:
        raise RunError(f"--seed is {args.seed}, allowed: 0 to {MAX_SEED}")
    if args.at_frames is not None and not 0 < args.at_frames < float("inf"):
        raise RunError(f"--at_frames is {args.at_frames}, expected more than 0")
    wanted = None
    if args.games is not None:
        wanted = [game.strip() for game in args.games.split(",") if game.strip()]
        if not wanted:
            raise RunError(f"--games is {args.games!r}, expected some of the runs' games")
    groups = parse_groups(args.runs, args.train_dir)
    games = games_in_common(groups, wanted)
    comparison = compare(groups, games, args.at_frames, args.seed)
    folder = writable_folder(args.output or args.train_dir / "comparison")
    _print(console, comparison)
    for file in write_comparison(folder, comparison):
        console.print(f"wrote {file}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _print(console: Console, comparison: Comparison) -> None:
    table = Table(
        title=Text(f"{comparison.scale}, {comparison.frames:,.0f} frames"), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    columns, rows = summary_rows(comparison)
    numbers = [i for i, name in enumerate(columns) if i > 1 and name != INTERVAL]
    table.add_column("group", overflow="fold")
    for name in ("runs", *(columns[i] for i in numbers)):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:  # an interval stands in the column after its number
        table.add_row(Text(row[0]), row[1], *(Text(f"{row[i]} [{row[i + 1]}]") for i in numbers))
    console.print(table)
    console.print(Text(table_caption(comparison)))
    if comparison.settings.empty:
        console.print("no setting differs")
    else:
        settings = Table(title="settings that differ", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in comparison.settings.columns:
            settings.add_column(Text(str(name)), overflow="fold")
        for values in comparison.settings.astype(str).to_numpy().tolist():
            settings.add_row(*(Text(text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…") for text in values))
        console.print(settings)
    if note := not_recorded_note(comparison):
        console.print(Text(note))
