"""A comparison's tables, and the files that it leaves: PNG, CSV and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from srwm_agents import html_page
from srwm_agents.comparison.differences import differences, not_recorded
from srwm_agents.comparison.drawing import draw_for_page, draw_for_phone
from srwm_agents.comparison.groups import Group
from srwm_agents.comparison.scores import (
    LAST_SHARE,
    Curve,
    Values,
    common_frames,
    curves_of,
    is_scored,
    random_panels,
    random_returns,
    scores_at,
)
from srwm_agents.comparison.statistics import Estimate, improvement, interquartile_mean, mean, with_interval
from srwm_agents.files import write_together

INTERVAL = "95 % interval"
"""Title of the column after a number's."""
FEW = 5
"""Fewer runs than that say little of those that were not made: a bootstrap draws from what is there."""


@dataclass(frozen=True)
class Comparison:
    """Groups of runs on the same games, compared at one number of frames."""

    groups: Sequence[Group]
    games: Sequence[str]
    frames: float
    scored: bool
    """Whether scores are normalised; else they are returns."""
    curves: Mapping[str, Sequence[Curve]]
    returns: Mapping[str, Values]
    """Each group's returns [runs, games]."""
    scores: Mapping[str, Values]
    """Each group's scores [runs, games]: normalised ones, or returns."""
    table: pd.DataFrame
    """A row a group: group, runs, mean, mean_low, mean_high, iqm, …, improvement, … (over the first group)."""
    pairs: pd.DataFrame
    """A row for each ordered pair: group, over, improvement, improvement_low, improvement_high."""
    settings: pd.DataFrame
    """What differs (:func:`.differences.differences`)."""
    not_recorded: Mapping[str, str]
    """Of :func:`.differences.not_recorded`."""
    random: Mapping[str, float]
    """What a random policy gets, by panel of the picture, where that is known."""

    @property
    def scale(self) -> str:
        """What the scores are, in words."""
        if not self.scored:
            return f"mean return on {self.games[0]}" if len(self.games) == 1 else "mean return"
        return "normalised score" + (
            f" over {len(self.games)} games" if len(self.games) > 1 else f" on {self.games[0]}"
        )


def compare(
    groups: Sequence[Group],
    games: Sequence[str],
    at_frames: float | None = None,
    seed: int = 0,
    random: Mapping[str, float] | None = None,
) -> Comparison:
    """Compare groups of runs.

    Args:
        groups: as :func:`.groups.parse_groups` returns them.
        games: that all runs play, as :func:`.groups.games_in_common` returns them.
        at_frames: where scores are compared; None: at the largest number of frames that all runs have reached.
        seed: of the bootstrap.
        random: a random policy's mean return by game; None: as measured for Procgen's games, where their levels are
            many (:func:`.scores.random_returns`).

    Raises:
        RunError: a run is too short.
    """
    frames = common_frames(groups, games, at_frames)
    scored = is_scored(groups, games)
    returns = scores_at(groups, games, frames, "mean_return")
    scores = scores_at(groups, games, frames, "normalised_score") if scored else returns
    labels = [group.label for group in groups]
    pairs = pd.DataFrame(
        [
            {
                "group": x,
                "over": y,
                **_columns("improvement", with_interval(improvement, scores[x], scores[y], seed=seed)),
            }
            for x in labels
            for y in labels
            if x != y
        ],
        columns=["group", "over", "improvement", "improvement_low", "improvement_high"],
    )
    rows = [
        {
            "group": label,
            "runs": len(scores[label]),
            **_columns("mean", with_interval(mean, scores[label], seed=seed)),
            **_columns("iqm", with_interval(interquartile_mean, scores[label], seed=seed)),
        }
        for label in labels
    ]
    over_first = pairs[pairs["over"] == labels[0]].drop(columns="over")
    table = pd.DataFrame(rows).merge(over_first, on="group", how="left")
    return Comparison(
        groups,
        games,
        frames,
        scored,
        curves_of(groups, games),
        returns,
        scores,
        table,
        pairs,
        differences(groups),
        not_recorded(groups),
        random_panels(groups, games, scored, random_returns(groups, games) if random is None else random),
    )


def cells(row: Mapping[Any, Any], name: str, digits: int) -> tuple[str, str]:
    """A statistic of a row of a table, and its interval; dashes where there is none."""
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    interval = "–" if np.isnan(low) else f"{low:.{digits}f}, {high:.{digits}f}"
    return "–" if np.isnan(value) else f"{value:.{digits}f}", interval


def draw(comparison: Comparison) -> tuple[bytes, bytes]:
    """The curves as PNGs: for a page, and for a phone."""
    with TemporaryDirectory() as temporary:
        wide, narrow = Path(temporary, "wide.png"), Path(temporary, "narrow.png")
        draw_for_page(wide, comparison.curves, comparison.random)
        draw_for_phone(narrow, comparison.curves, comparison.random)
        return wide.read_bytes(), narrow.read_bytes()


def write_comparison(folder: Path, comparison: Comparison) -> list[Path]:
    """Write all files of a comparison into a folder; where comparison.html is, all are of one comparison."""
    pictures = draw(comparison)
    section = make_section(comparison, *pictures)
    return write_together(
        {
            folder / "curves.png": pictures[0],
            folder / "curves_narrow.png": pictures[1],
            folder / "curves_of_groups.csv": _curves_table(comparison).to_csv(index=False),
            folder / "scores.csv": _scores_table(comparison).to_csv(index=False),
            folder / "table.csv": comparison.table.to_csv(index=False),
            folder / "improvement.csv": comparison.pairs.to_csv(index=False),
            folder / "settings.csv": comparison.settings.to_csv(index=False),
            folder / "comparison.html": html_page.page("Comparison of runs", [section]),
        }
    )


def make_section(comparison: Comparison, wide: bytes, narrow: bytes) -> html_page.Section:
    """The comparison as a section of a page: curves, table, probabilities of improvement, settings that differ.

    Args:
        comparison: what was compared.
        wide: the PNG for a page.
        narrow: the one for a phone.
    """
    labels = [group.label for group in comparison.groups]
    parts = [
        html_page.picture(wide, f"Learning curves of {', '.join(labels)}", narrow),
        html_page.paragraph(curves_caption(comparison)),
        _summary(comparison),
        html_page.paragraph(table_caption(comparison)),
    ]
    if len(labels) > 2:
        parts += [
            html_page.paragraph(
                "Probability that a run of the row is better than one of the column, with its interval:"
            ),
            _matrix(comparison),
        ]
    if len(comparison.games) > 1:
        parts += [html_page.paragraph("Mean return of each game at these frames:"), _games(comparison)]
    if len(comparison.settings):
        parts += [
            html_page.paragraph("Settings that differ:"),
            html_page.table(list(comparison.settings.columns), comparison.settings.astype(str).to_numpy().tolist()),
        ]
    elif sum(len(group.runs) for group in comparison.groups) > 1:
        parts.append(html_page.paragraph("No setting differs."))
    if note := not_recorded_note(comparison):
        parts.append(html_page.paragraph(note))
    return html_page.Section(
        f"{' and '.join([', '.join(labels[:-1]), labels[-1]]) if labels[1:] else labels[0]}", tuple(parts)
    )


def curves_caption(comparison: Comparison) -> str:
    """What is on the picture."""
    several = any(len(group.runs) > 1 for group in comparison.groups)
    text = "Returns in training, means of the latest episodes."
    if several:
        text += (
            " Lines are means over a group's runs, bands reach from its lowest to its highest run; where its shortest "
            "run has ended, the others go on as thin lines."
        )
    return text + (" Dotted: uniformly random actions." if comparison.random else "")


def table_caption(comparison: Comparison) -> str:
    """What the numbers of the table are, in full sentences."""
    text = (
        f"At {comparison.frames:,.0f} frames, in training: the {comparison.scale}, each run's curve averaged over the "
        f"last {100 * LAST_SHARE:.0f} % of these frames. Intervals: 95 %, stratified bootstrap over runs."
    )
    sizes = [len(group.runs) for group in comparison.groups]
    if min(sizes) == 1:
        text += " One run has no interval."
    if any(1 < size < FEW for size in sizes):
        text += f" Intervals of fewer than {FEW} runs are too narrow."
    if len(comparison.groups) > 1:
        text += f" P(better): probability that a run is better than one of {comparison.groups[0].label} on a game."
    return text


def not_recorded_note(comparison: Comparison) -> str:
    """Settings that older runs do not have, in a sentence; "" if there are none."""
    if not comparison.not_recorded:
        return ""
    settings = ", ".join(f"{name}={value}" for name, value in comparison.not_recorded.items())
    return f"Not recorded by some runs, which are older than these settings: {settings}."


def summary_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table as texts."""
    digits = 3 if comparison.scored else 1
    columns = ["group", "runs", "mean", INTERVAL, "IQM", INTERVAL]
    with_pairs = len(comparison.groups) > 1
    columns += ["P(better)", INTERVAL] if with_pairs else []
    rows = []
    for row in comparison.table.to_dict("records"):
        texts = [str(row["group"]), str(row["runs"]), *cells(row, "mean", digits), *cells(row, "iqm", digits)]
        rows.append(texts + (list(cells(row, "improvement", 2)) if with_pairs else []))
    return columns, rows


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _summary(comparison: Comparison) -> str:
    columns, rows = summary_rows(comparison)
    return html_page.table(columns, rows, numbers=columns[1:])


def _matrix(comparison: Comparison) -> str:
    labels = [group.label for group in comparison.groups]
    found = {(row["group"], row["over"]): cells(row, "improvement", 2) for row in comparison.pairs.to_dict("records")}
    rows = [
        [
            x,
            *(
                "" if x == y else (found[x, y][0] if found[x, y][1] == "–" else "{} ({})".format(*found[x, y]))
                for y in labels
            ),
        ]
        for x in labels
    ]
    return html_page.table(["", *labels], rows, numbers=labels)


def _games(comparison: Comparison) -> str:
    labels = [group.label for group in comparison.groups]
    means = {label: comparison.returns[label].mean(axis=0) for label in labels}
    rows = [[game, *(f"{means[label][i]:.2f}" for label in labels)] for i, game in enumerate(comparison.games)]
    return html_page.table(["game", *labels], rows, numbers=labels)


def _curves_table(comparison: Comparison) -> pd.DataFrame:
    tables = [
        curve.table().assign(group=label, panel=curve.panel)[
            ["group", "panel", "frames", "runs", "mean", "low", "high"]
        ]
        for label, curves in comparison.curves.items()
        for curve in curves
    ]
    return pd.concat(tables, ignore_index=True)


def _scores_table(comparison: Comparison) -> pd.DataFrame:
    """A row for each run and game."""
    rows = []
    for group in comparison.groups:
        returns, scores = comparison.returns[group.label], comparison.scores[group.label]
        for i, run in enumerate(group.runs):
            for j, game in enumerate(comparison.games):
                score = scores[i, j] if comparison.scored else float("nan")
                rows.append(
                    (group.label, run.name, run.settings.get("seed"), game, comparison.frames, returns[i, j], score)
                )
    return pd.DataFrame(rows, columns=["group", "run", "seed", "game", "frames", "mean_return", "normalised_score"])
