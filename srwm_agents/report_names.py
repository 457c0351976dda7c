"""Names of an evaluation's files: a smaller evaluation never overwrites a larger one."""

from __future__ import annotations

import json
from pathlib import Path


def report_name(folder: Path, name: str, rows: str, episodes: int) -> str:
    """The name that an evaluation's reports get in a folder.

    Args:
        folder: of the reports.
        name: of the reports, without an ending; ``name.json`` may be an earlier evaluation's.
        rows: the entry of that JSON object which lists rows with "episodes".
        episodes: of the evaluation that is to be written, in all rows together.

    Returns:
        ``name``; or ``name_of_N``, N being ``episodes``, where the earlier one has more episodes.
    """
    return f"{name}_of_{episodes}" if _episodes_in(folder / f"{name}.json", rows) > episodes else name


def kept(name: str, written: Path) -> str | None:
    """What to tell where reports got another name than ``name``; ``written``: one of them."""
    return None if written.stem == name else f"kept {written.with_name(name)}.*, which has more episodes"


def _episodes_in(file: Path, rows: str) -> int:
    """Episodes of an earlier evaluation; 0 if the file is missing, damaged or no such report."""
    try:
        return sum(int(row["episodes"]) for row in json.loads(file.read_text())[rows])
    except (OSError, ValueError, TypeError, LookupError):
        return 0
