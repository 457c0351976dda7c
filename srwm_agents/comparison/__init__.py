"""Runs beside each other: what lies in a ``train_dir``, curves, scores with intervals, settings that differ."""

from srwm_agents.extras import require

require("eval", "rich", "pandas", "matplotlib")
