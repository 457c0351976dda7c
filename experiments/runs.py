"""A run's folder: ``config.yaml``, ``summary.json``, ``curves.csv`` or ``curves.csv.xz``, and ``episodes.csv.xz``.

- ``config.yaml``: the recipe, what the run overrides of it (``settings``), seed, frames, commit where it is known, and
  the stages at which it was evaluated;
- ``curves.csv``: what training logged; Procgen's, which are long, as ``curves.csv.xz``;
- ``summary.json``: what each evaluation found, in the columns of ``eval_*.csv``: ``{stage: {policy: rows}}``;
- ``episodes.csv.xz``: every episode of every evaluation, with the columns ``stage`` and ``policy`` in front of those of
  ``eval_*_episodes.csv``, less two that follow from the others: ``episode`` (rows are in order) and
  ``normalised_score``.

Files other than ``config.yaml`` may be missing.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd

from srwm_agents.envs import normalised_score
from srwm_agents.recipes import yaml_text

CURVES = "curves.csv.xz"
DERIVED = ("episode", "normalised_score")
Tables = dict[str, dict[str, pd.DataFrame]]
"""A table for each stage and policy."""


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.yaml``, its keys in the order in which they are given."""
    (folder / "config.yaml").write_text(yaml_text(config))


def write_summary(folder: Path, evaluations: Tables) -> None:
    """Write ``summary.json``, a line a row."""
    stages = []
    for stage, policies in evaluations.items():
        tables = []
        for policy, table in policies.items():
            columns = json.dumps([*table.columns])
            rows = ",\n    ".join(json.dumps(row) for row in table.astype(object).values.tolist())
            tables.append(f'  "{policy}": {{"columns": {columns}, "rows": [\n    {rows}]}}')
        stages.append(f' "{stage}": {{\n' + ",\n".join(tables) + "}")
    (folder / "summary.json").write_text("{\n" + ",\n".join(stages) + "\n}\n")


def write_compressed(file: Path, text: str) -> None:
    """Write a table as xz, which pandas reads by the file's name; line ends become those of Unix."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]  # for text
    file.write_bytes(lzma.compress(text.replace("\r\n", "\n").encode(), filters=filters))


def read_summary(folder: Path) -> Tables:
    """The tables of ``summary.json``; none if there is no such file."""
    file = folder / "summary.json"
    if not file.is_file():
        return {}
    return {
        stage: {policy: pd.DataFrame(table["rows"], columns=table["columns"]) for policy, table in policies.items()}
        for stage, policies in json.loads(file.read_text()).items()
    }


def add_evaluations(folder: Path, stage: str, reports: Path) -> list[str]:
    """Put what ``eval_rl.py`` reported into ``summary.json`` and ``episodes.csv.xz``, in place of that stage's before.

    Cells are copied as text, so that no number changes.

    Args:
        folder: the run's.
        stage: a name for the evaluated agent: "last", "at_96M", …
        reports: a folder with ``eval_POLICY.csv`` and ``eval_POLICY_episodes.csv``.

    Returns:
        The policies that there were.
    """
    policies = [file.stem.removeprefix("eval_") for file in sorted(reports.glob("eval_*.csv"))]
    policies = [policy for policy in policies if not policy.endswith("_episodes")]
    if not policies:
        return []
    tables = {policy: pd.read_csv(reports / f"eval_{policy}.csv", float_precision="round_trip") for policy in policies}
    write_summary(folder, read_summary(folder) | {stage: tables})
    file = folder / "episodes.csv.xz"
    lines = lzma.decompress(file.read_bytes()).decode().splitlines() if file.is_file() else []
    lines = [line for line in lines if not line.startswith(f"{stage},")]
    for policy in policies:
        header, *rows = (line.split(",") for line in (reports / f"eval_{policy}_episodes.csv").read_text().splitlines())
        kept = [i for i, column in enumerate(header) if column not in DERIVED]
        names = ",".join(["stage", "policy", *(header[i] for i in kept)])
        lines = lines or [names]
        if lines[0] != names:
            raise ValueError(f"the episodes in {reports} have the columns {names}, expected {lines[0]}")
        lines += [",".join([stage, policy, *(row[i] for i in kept)]) for row in rows]
    write_compressed(file, "\n".join(lines) + "\n")
    return policies


def read_episodes(folder: Path, mode: str) -> Tables:
    """The episodes of each stage and policy in a distribution mode; none if there is no ``episodes.csv.xz``."""
    file = folder / "episodes.csv.xz"
    if not file.is_file():
        return {}
    episodes = pd.read_csv(file)
    key = ["stage", "policy", "split", "game"]
    episodes.insert(4, "episode", episodes.groupby(key).cumcount())
    normalised = [normalised_score(game, mode, score) for game, score in episodes[["game", "return"]].to_numpy()]
    episodes.insert(6, "normalised_score", normalised)
    tables: Tables = {}
    for (stage, policy), rows in episodes.groupby(["stage", "policy"], sort=False):
        tables.setdefault(str(stage), {})[str(policy)] = rows.drop(columns=["stage", "policy"]).reset_index(drop=True)
    return tables
