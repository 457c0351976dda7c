"""Trains memories on bandits and tabular MDPs, spread over GPUs and cores, and measures their regret.

    python -m experiments.adaptation.train --recipes srwm,delta,gru,lstm --tasks bandit_10_100 --seeds 1,2 --per_gpu 4
    python -m experiments.adaptation.train --recipes small_srwm --tasks bandit_5_10 --frames 1e6    # on a CPU
    python -m experiments.adaptation.train --collect
    python -m experiments.adaptation.picture

Runs, ``--seconds`` and ``--collect``: see ``experiments/studies.py``. When a run has been trained (or was stopped),
``experiments.adaptation.regret`` plays its agent in 1,000 new problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import studies
from experiments.adaptation.tasks import GROUPS, TASKS

FOLDER = Path(__file__).parent


def evaluation(task: str, folder: Path) -> list[Any]:
    """The command that measures the regret of an experiment's agent."""
    module = ["-m", "experiments.adaptation.regret"]
    return [*module, f"--task={task}", f"--agent={folder / 'agent'}", f"--out={folder / 'regret.csv'}"]


STUDY = studies.Study(
    recipes=FOLDER / "recipes",
    runs=FOLDER / "runs",
    groups=GROUPS,
    flags=lambda task: TASKS[task].flags,
    frames=30e6,
    first=("srwm,gru", "first"),
    evaluation=evaluation,
    tables=("regret",),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or collect; returns the exit status."""
    return studies.main(STUDY, __doc__, "adaptation", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
