"""Draws architecture.png: ``python docs/pictures/architecture.py``."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

INK, PAPER = "#1f2933", "#ffffff"
COLOURS = {"user": "#ffe8b3", "plug": "#d3e5ff", "agent": "#d9f2dc", "base": "#eceff3", "env": "#f9d9dd"}

BOXES = [  # x, y, width, height, colour, title, text
    (0.0, 5.2, 3.2, 0.8, "user", "train_rl.py", "trains from the command line"),
    (3.4, 5.2, 3.2, 0.8, "user", "python -m srwm_agents", "few-shot, introspective,\nmany machines, export"),
    (6.8, 5.2, 3.2, 0.8, "user", "eval_rl.py", "scores, tables, video"),
    (
        0.0,
        3.9,
        3.2,
        0.95,
        "plug",
        "integrations",
        "sample_factory, sb3, torchrl,\nexport, hub",
    ),
    (3.4, 3.9, 3.2, 0.95, "plug", "fewshot", "data, episodes, training,\nevaluation"),
    (6.8, 3.9, 3.2, 0.95, "plug", "evaluation", "episodes, statistics,\nreports, videos, curves"),
    (0.0, 2.85, 6.9, 0.75, "agent", "agent.py, policy.py, portable.py", "encoder + core + heads; save, load, act"),
    (0.0, 1.9, 3.35, 0.75, "base", "cores", "stacks behind one interface"),
    (3.55, 1.9, 3.35, 0.75, "base", "encoders", "images to features"),
    (0.0, 0.95, 6.9, 0.75, "base", "layers", "one nn.Module around each op; feed-forward block"),
    (0.0, 0.0, 3.35, 0.75, "base", "ops", "srwm, delta rule, V-trace, pooling"),
    (3.55, 0.0, 3.35, 0.75, "base", "introspective", "the net of 1993, its gradients"),
    (
        7.3,
        0.0,
        2.7,
        3.6,
        "env",
        "envs",
        "Procgen:\ngames, modes, score\nconstants, one C++\nvector environment\nfor many games\n\n"
        "(knows nothing\nof agents)",
    ),
]
ARROWS = [
    ((1.6, 5.2), (1.6, 4.87)),
    ((5.0, 5.2), (5.0, 4.87)),
    ((8.4, 5.2), (8.4, 4.87)),
    ((1.6, 3.9), (1.6, 3.62)),
    ((5.0, 3.9), (5.0, 3.62)),
    ((6.9, 3.9), (6.6, 3.62)),
    ((3.1, 3.9), (7.4, 3.62)),
    ((8.65, 3.9), (8.65, 3.62)),
    ((1.7, 2.85), (1.7, 2.67)),
    ((5.2, 2.85), (5.2, 2.67)),
    ((1.7, 1.9), (1.7, 1.72)),
    ((1.7, 0.95), (1.7, 0.77)),
    ((5.2, 0.95), (5.2, 0.77)),
    ((3.57, 0.37), (3.33, 0.37)),
]


def main() -> None:
    figure = Figure(figsize=(9, 5.6), facecolor=PAPER)
    axis = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axis.set_xlim(-0.1, 10.1)
    axis.set_ylim(-0.1, 6.1)
    axis.axis("off")
    for x, y, width, height, colour, title, text in BOXES:
        axis.add_patch(
            FancyBboxPatch(
                (x + 0.05, y + 0.05),
                width - 0.1,
                height - 0.1,
                boxstyle="round,pad=0.05",
                fc=COLOURS[colour],
                ec=INK,
                lw=0.8,
            )
        )
        tall = height > 2
        axis.text(x + 0.15, y + height - 0.12, title, va="top", weight="bold", color=INK, size=11, family="monospace")
        axis.text(
            x + 0.15, y + (height - 0.55 if tall else 0.1), text, va="top" if tall else "bottom", color=INK, size=9
        )
    for begin, end in ARROWS:
        axis.annotate("", xy=end, xytext=begin, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.2})
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
