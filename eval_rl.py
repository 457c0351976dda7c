"""Evaluate a saved agent on Procgen: ``python eval_rl.py --experiment demo``; ``--help`` lists everything."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Play episodes, print the table, write the reports; returns the exit status."""
    from srwm_agents.evaluation.command import evaluate

    return evaluate(argv)


if __name__ == "__main__":
    sys.exit(main())
