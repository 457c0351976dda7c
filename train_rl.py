"""Train a recurrent agent on Procgen: ``python train_rl.py --preset demo``; ``--help`` lists everything."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Train, draw the learning curves, say where everything lies; returns the exit status."""
    from srwm_agents.integrations.sample_factory import train

    result = train(argv)
    return result.exit_status


if __name__ == "__main__":
    sys.exit(main())
