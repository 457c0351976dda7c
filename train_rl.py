"""Train a recurrent agent on Procgen: ``python train_rl.py --preset demo``; ``--help`` lists everything."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Train, draw the learning curves, say where everything lies; returns the exit status."""
    from srwm_agents.integrations.sample_factory import train

    result = train(argv)
    if result.exit_status == 0 and result.folder is not None:
        if result.curves is not None:
            from srwm_agents.evaluation.curves import plot_curves  # seconds, which no run should start with

            picture = plot_curves(result.curves, result.folder / "learning_curves.png", result.folder.name)
            print(f"learning curves: {picture} (raw numbers: {result.curves})")
        print(f"agent:           {result.agent}")
        print(f"TensorBoard:     tensorboard --logdir {result.folder}")
        print(
            f"evaluate it:     python eval_rl.py --train_dir {result.folder.parent} --experiment {result.folder.name}"
        )
    return result.exit_status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before training began; afterwards a signal saves and stops
        sys.stderr.write("train_rl.py: interrupted, nothing was trained\n")
        sys.exit(130)
