"""Evaluate a saved agent on Procgen: ``python eval_rl.py --experiment demo``; ``--help`` lists everything."""

from __future__ import annotations

import sys

from srwm_agents.__main__ import evaluate as main

if __name__ == "__main__":
    sys.exit(main())
