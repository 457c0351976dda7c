"""Train a recurrent agent on Procgen: ``python train_rl.py --preset demo``; ``--help`` lists everything."""

from __future__ import annotations

import sys

from srwm_agents.__main__ import train as main

if __name__ == "__main__":
    sys.exit(main())
