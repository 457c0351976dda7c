"""Groups of runs, usually of seeds, from what a command line names; and whether they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from srwm_agents.comparison.runs import Run, RunError, find_runs, nearest, run_at

_WILD = frozenset("*?[")
MOST = 8
"""Groups on one picture: there are so many colours that can be told apart."""


@dataclass(frozen=True)
class Group:
    """Runs that are one line in a picture and one row in a table."""

    label: str
    runs: tuple[Run, ...]


def parse_groups(words: Sequence[str], train_dir: Path) -> list[Group]:
    """Find the runs that a command line names.

    Args:
        words: each ``RUN`` or ``LABEL=RUN,RUN,…``, where a RUN is a run's name in ``train_dir``, a folder's path, or a
            pattern of either with ``*``, ``?`` or ``[…]``.
        train_dir: where names are looked for.

    Raises:
        RunError: a name or pattern leads to no run, a run or label comes twice, or there are more than :data:`MOST`.
    """
    known = find_runs(train_dir) if train_dir.is_dir() else []
    groups: list[Group] = []
    seen: dict[Path, str] = {}
    for word in words:
        label, parts = _split(word, known)
        runs = [run for part in parts for run in _named(part, known, train_dir)]
        if label in [group.label for group in groups]:
            raise RunError(f"{label!r} is named twice; a group of several runs is LABEL=RUN,RUN or LABEL='PATTERN*'")
        for run in runs:
            place = run.folder.resolve()
            if place in seen:
                raise RunError(
                    f"the run {run.name!r} is in {seen[place]!r} and again in {label!r}, expected in one group"
                )
            seen[place] = label
        groups.append(Group(label, tuple(runs)))
    if len(groups) > MOST:
        raise RunError(f"{len(groups)} groups, at most {MOST} can be told apart on one picture")
    return groups


def games_in_common(groups: Sequence[Group], wanted: Sequence[str] | None = None) -> list[str]:
    """The games (or the environment) of all runs, in the first one's order; checks that scores mean the same.

    Args:
        groups: runs that are to be compared.
        wanted: some of the games; None for all.

    Raises:
        RunError: few-shot runs, runs without curves, runs on different games or variants of them, or wanted games that
            a run does not have.
    """
    runs = [run for group in groups for run in group.runs]
    for run in runs:
        if run.kind == "fewshot":
            raise RunError(f"{run.name!r} is a few-shot experiment, expected runs that play games or an environment")
    games = {run: _checked(run) for run in runs}
    first = runs[0]
    for run in runs[1:]:
        if wanted is None and set(games[run]) != set(games[first]):
            common = [game for game in games[first] if game in games[run]]
            only = f"; --games {','.join(common)} compares those in common" if common else ""
            raise RunError(
                f"{run.name!r} is on {', '.join(games[run])}, but {first.name!r} on {', '.join(games[first])}: "
                f"only runs on the same games can be compared{only}"
            )
        if (mode := _mode(run)) != (its := _mode(first)):
            raise RunError(
                f"{run.name!r} has distribution_mode {mode!r}, but {first.name!r} {its!r}: these are different games"
            )
    if wanted is None:
        return games[first]
    for run in runs:
        for game in wanted:
            if game not in games[run]:
                raise RunError(f"--games names {game!r}, which {run.name!r} does not play{nearest(game, games[run])}")
    return list(dict.fromkeys(wanted))


def _split(word: str, known: list[Run]) -> tuple[str, list[str]]:
    """A word's label and the runs that it names."""
    label, sign, names = word.partition("=")
    if not sign or word in [run.name for run in known] or Path(word).is_dir():
        return word, [word]
    parts = [part.strip() for part in names.split(",") if part.strip()]
    if not label.strip() or not parts:
        raise RunError(
            f"{word!r} has no {'runs' if label.strip() else 'label'}, expected LABEL=RUN,RUN or LABEL='PATTERN*'"
        )
    return label.strip(), parts


def _named(name: str, known: list[Run], train_dir: Path) -> list[Run]:
    """The runs that a name, path or pattern leads to."""
    if not name:
        raise RunError("the name of a run is empty")
    found = [run for run in known if run.name == name]
    if found:
        return found
    if not _WILD & set(name):
        if (run := run_at(Path(name).expanduser(), Path(name).name)) is not None:
            return [run]
        if Path(name).expanduser().is_dir():
            raise RunError(f"{name} is no experiment's folder")
        raise RunError(f"no run {name!r} in {train_dir}{nearest(name, [run.name for run in known])}")
    found = [run for run in known if fnmatchcase(run.name, name)]
    if not found:
        pattern = Path(name).expanduser()
        folders = Path(pattern.anchor or ".").glob(str(pattern.relative_to(pattern.anchor)))
        found = [run for folder in sorted(folders) if (run := run_at(folder, folder.name)) is not None]
    if not found:
        raise RunError(f"no run matches {name!r} in {train_dir}{nearest(name, [run.name for run in known])}")
    return found


def _checked(run: Run) -> list[str]:
    """The games of a run's curves, in the order of its settings."""
    try:
        asked = run.plays.split(",")
        games = dict.fromkeys(run.curves["game"])
        return [game for game in asked if game in games] + [game for game in games if game not in asked]
    except RunError as error:
        raise RunError(f"{run.name!r} cannot be compared: {error}") from error


def _mode(run: Run) -> str:
    return str(run.settings.get("distribution_mode", "easy"))
