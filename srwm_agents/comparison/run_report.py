"""The report of one run: an HTML page with its curves, scores, evaluations, settings, and where everything lies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srwm_agents import html_page
from srwm_agents.comparison.groups import Group, games_in_common
from srwm_agents.comparison.report import compare, draw, make_section
from srwm_agents.comparison.runs import Run, RunError, run_at
from srwm_agents.files import write_atomically

FILE = "report.html"
FILES = {
    "agent": "the agent as it was saved last, for load_agent",
    "agent_average": "the mean of the agents of the last third of the run",
    "agent_best": "the agent with the best score in training",
    "checkpoint_p0": "checkpoints, from which the same command goes on",
    "curves.csv": "the numbers of the curves above",
    "evaluation": "evaluations, videos",
    ".summary": "TensorBoard's files",
    "config.json": "what was asked for",
    "sf_log.txt": "Sample Factory's log",
}
"""What a run's folder has, and what it is for."""


def write_run_report(folder: Path) -> Path:
    """Write :data:`FILE` into a run's folder; returns its path.

    Raises:
        RunError: there is no run, or it has no curves that can be drawn.
        OSError: the page cannot be written.
    """
    run = run_at(folder, folder.name)
    if run is None:
        raise RunError(f"{folder} is no experiment's folder")
    groups = [Group(run.name, (run,))]
    comparison = compare(groups, games_in_common(groups))
    curves = make_section(comparison, *draw(comparison))
    sections = [
        html_page.Section("Training", curves.parts),
        *_evaluations(folder / "evaluation"),
        _settings(run),
        _places(folder),
    ]
    page = html_page.page(f"{run.name}: {run.core} on {run.plays.replace(',', ', ')}", sections)
    write_atomically(folder / FILE, page)
    return folder / FILE


def evaluation_table(reports: Sequence[Path]) -> str | None:
    """Evaluations as one table of a page, a row for each game and range of levels; None if none can be read.

    Args:
        reports: files ``eval_*.json`` of the evaluation command.
    """
    columns = ["actions", "levels", "game", "return", "95 % interval", "normalised", "episodes"]
    rows = []
    for file in reports:
        try:
            content = json.loads(file.read_text())
            kind = f"{content['policy']}{', no memory' if content['forget'] else ''}"
            rows += [[kind, *_row(entry)] for entry in content["games"]]
        except (OSError, ValueError, LookupError, TypeError):
            continue  # of an earlier version, or being written
    return html_page.table(columns, rows, numbers=columns[3:]) if rows else None


def _row(entry: dict[str, Any]) -> list[str]:
    low, high, score = (entry.get(name) for name in ("return_low", "return_high", "normalised_score"))
    return [
        str(entry["split"]),
        str(entry["game"]),
        f"{entry['return']:.2f}",
        "–" if low is None or high is None else f"{low:.2f}, {high:.2f}",
        "–" if score is None else f"{score:.3f}",
        f"{entry['episodes']:,}",
    ]


def _evaluations(folder: Path) -> list[html_page.Section]:
    table = evaluation_table(sorted(folder.glob("eval_*.json")))
    return [] if table is None else [html_page.Section("Evaluations", (table,))]


def _settings(run: Run) -> html_page.Section:
    names = sorted(run.given - {"preset"})
    rows = [[name, str(run.settings.get(name))] for name in names]
    preset = run.settings.get("preset")
    about = f"Preset {preset}" if preset else "No preset"
    parts = [html_page.paragraph(f"{about}{', with these flags:' if rows else ', without further flags.'}")]
    return html_page.Section("Settings", (*parts, *([html_page.table(["flag", "value"], rows)] if rows else [])))


def _places(folder: Path) -> html_page.Section:
    rows = [[name, what] for name, what in FILES.items() if (folder / name).exists()]
    where = html_page.paragraph(f"In {folder.resolve()}:")
    return html_page.Section("Where everything lies", (where, html_page.table(["name", "what it is"], rows)))
