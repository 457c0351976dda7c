"""The training command: ``srwm-train``, ``srwm train``, and ``train_rl.py`` in a checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from srwm_agents.command_line import program, to_type


def main(argv: Sequence[str] | None = None) -> int:
    """Train, draw the learning curves, print where everything lies; returns the exit status."""
    try:
        return _train(argv)
    except KeyboardInterrupt:  # before training began; afterwards a signal saves and stops
        sys.stderr.write(f"{program('train')}: interrupted, nothing was trained\n")
        return 130


def _train(argv: Sequence[str] | None) -> int:
    from srwm_agents.integrations.sample_factory import train

    result = train(argv)
    if result.exit_status == 0 and result.folder is not None:
        if result.curves is not None:
            from srwm_agents.evaluation.curves import plot_curves  # seconds, which no run should start with

            picture = plot_curves(result.curves, result.folder / "learning_curves.png", result.folder.name)
            print(f"learning curves: {picture} (raw numbers: {result.curves})")
        print(f"agent:           {result.agent}")
        print(f"TensorBoard:     tensorboard --logdir {result.folder}")
        evaluation = f"--train_dir {result.folder.parent} --experiment {result.folder.name}"
        print(f"evaluate it:     {to_type('eval')} {evaluation}")
    return result.exit_status
