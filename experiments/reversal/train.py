"""Trains small memories to play a sequence back in reverse, with and without what they were given for it.

    python -m experiments.reversal.train --recipes srwm,srwm_step,srwm_bias,srwm_step_bias --tasks reversal_16
    python -m experiments.reversal.train --collect
    python -m experiments.reversal.table

A run takes some minutes on one CPU core (``--per_gpu 2`` makes two at a time). Runs, ``--seconds`` and ``--collect``:
see ``experiments/studies.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import studies

FOLDER = Path(__file__).parent
ENV = "experiments.reversal.environment:Reversal-v0"
LENGTHS = {"reversal_16": 16}
"""Symbols of each task."""
STUDY = studies.Study(
    recipes=FOLDER / "recipes",
    runs=FOLDER / "runs",
    groups={"all": list(LENGTHS)},
    flags=lambda task: {"env": ENV, "env_kwargs": {"length": LENGTHS[task]}},
    frames=300_000,
    first=("srwm,srwm_step,srwm_bias,srwm_step_bias,delta,delta_step,gru,gru_step", "all"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or collect; returns the exit status."""
    return studies.main(STUDY, __doc__, "reversal", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
