"""Trains memories on POPGym's tasks, spread over GPUs and cores, and collects the scores.

    python -m experiments.popgym.train --recipes gru,srwm --tasks check --seeds 1,2,3 --per_gpu 4
    python -m experiments.popgym.train --recipes srwm --tasks RepeatPreviousHard,bandits --seconds 3000
    python -m experiments.popgym.train --collect
    python -m experiments.popgym.table

Runs, ``--seconds`` and ``--collect``: see ``experiments/studies.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import studies
from experiments.popgym.tasks import GROUPS, env_of

FOLDER = Path(__file__).parent
STUDY = studies.Study(
    recipes=FOLDER / "recipes",
    runs=FOLDER / "runs",
    groups=GROUPS,
    flags=lambda task: {"env": env_of(task)},
    frames=15e6,
    first=("srwm,gru", "check"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or collect; returns the exit status."""
    return studies.main(STUDY, __doc__, "popgym", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
