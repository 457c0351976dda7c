"""Trains agents whose critics learn at other paces, on single games and on the six, spread over GPUs and cores.

    python -m experiments.procgen.critic.train --recipes rate_eighth,rate_quarter --tasks six_games --frames 300e6
    python -m experiments.procgen.critic.train --recipes rate_eighth --tasks plunder --seeds 1,2 --seconds 300
    python -m experiments.procgen.critic.train --recipes plain,rate_eighth --tasks maze,leaper --per_gpu 2

Runs and ``--seconds``: see ``experiments/studies.py``. What is kept of them is collected by
``experiments.procgen.learnable.collect``, which reads the learner's summaries too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import studies

FOLDER = Path(__file__).parent
GAMES = ("plunder", "maze", "leaper", "bigfish", "fruitbot", "starpilot")
SIX = "six_games"
ONE_GAME = {"num_envs_per_worker": 128, "batch_size": 2048, "num_batches_per_epoch": 8}
"""As the study's first runs: 384 games, a vector of which makes eight minibatches."""


def flags(task: str) -> Mapping[str, Any]:
    """What ``train_rl.py`` needs beside a recipe to play a task."""
    return {} if task == SIX else {"games": task, **ONE_GAME}


STUDY = studies.Study(
    recipes=FOLDER / "recipes",
    runs=FOLDER,
    groups={"all": (*GAMES, SIX)},
    flags=flags,
    frames=50e6,
    first=("rate_eighth", "plunder"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; returns the exit status."""
    return studies.main(STUDY, __doc__, "critic", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
