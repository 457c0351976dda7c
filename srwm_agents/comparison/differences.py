"""What differs in the settings of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from srwm_agents.comparison.groups import Group

NOT_RECORDED = "–"
"""In place of a setting that is younger than the run."""


def differences(groups: Sequence[Group]) -> pd.DataFrame:
    """A row for each setting in which two runs differ, a column a group.

    Returns:
        Columns "setting" and each group's label; a cell has the values of the group's runs, each once, in their order.
        Settings of :func:`not_recorded` have no row.
    """
    runs = [run for group in groups for run in group.runs]
    names = sorted({name for run in runs for name in run.settings} - set(not_recorded(groups)))
    rows = []
    for name in names:
        if len({_shown(run.settings, name) for run in runs}) > 1:
            cells = [", ".join(dict.fromkeys(_shown(run.settings, name) for run in group.runs)) for group in groups]
            rows.append([name, *cells])
    return pd.DataFrame(rows, columns=["setting", *(group.label for group in groups)])


def not_recorded(groups: Sequence[Group]) -> dict[str, str]:
    """Settings that some runs are older than, and that have one value in all others; whether they differ is unknown."""
    runs = [run for group in groups for run in group.runs]
    found = {}
    for name in sorted({name for run in runs for name in run.settings}):
        values = {_shown(run.settings, name) for run in runs}
        if len(values) == 2 and NOT_RECORDED in values:
            found[name] = (values - {NOT_RECORDED}).pop()
    return found


def _shown(settings: Mapping[str, Any], name: str) -> str:
    if name not in settings:
        return NOT_RECORDED
    value = settings[name]
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, sort_keys=True)
