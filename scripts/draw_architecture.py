"""Draws docs/pictures/architecture.png from the imports that there are: ``python scripts/draw_architecture.py``.

A box is a package or module of ``srwm_agents``; an arrow from one to another is an import, left out where it follows
from others. Boxes stand above all that they import. Small modules that many others use are one box at the bottom, and
their arrows are left out. Commands at the top are not drawn from imports.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import grimp

from srwm_agents import plotting

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "architecture.png"
ROOTS = ("srwm_agents",)
HELPERS = (
    "files",
    "signals",
    "display",
    "plotting",
    "settings",
    "command_help",
    "command_line",
    "extras",
    "curves",
    "html_page",
    "report_names",
    "launch",
    "peers",
    "processes",
    "graphs",
    "recipes",
    "checksums",
    "experiment_folders",
    "gymnasium_names",
    "limits",
    "machine",
    "tensor_files",
)
FRAMEWORKS = ("sample_factory", "sb3", "torchrl", "export", "hub")
"""Packages of ``integrations``, which are boxes of their own."""
TEXTS = {
    "sample_factory": "trainer, its actors\nand learners",
    "sb3": "policies and memory",
    "torchrl": "modules, environments",
    "export": "ONNX, torch.export",
    "hub": "Hugging Face",
    "distributed": "learners and collectors\non many machines",
    "evaluation": "episodes, statistics,\nreports",
    "comparison": "runs beside each other",
    "inspection": "what a memory does:\npage, film, numbers",
    "fewshot": "data, episodes,\ntraining",
    "introspective": "the net of 1993",
    "learning": "returns, losses,\nscales, update",
    "policy": "an agent as a callable",
    "averaging": "means of weights",
    "agent": "encoder + core + heads",
    "portable": "the saved format",
    "cores": "stacks of layers",
    "encoders": "images to features",
    "layers": "one module an op",
    "ops": "pure functions, kernels",
    "envs": "Procgen, environments\nof Gymnasium",
    "modules": "SRWM as torch.nn.GRU",
    "spaces": "what is seen and done",
}
COMMANDS = {
    "train_rl.py": "trains agents",
    "eval_rl.py": "scores, tables, films",
    "python -m srwm_agents": "all commands",
}
FILLS = {"top": "#ffe8b3", "framework": "#d3e5ff", "own": "#eceff3", "helper": "#f9d9dd"}
WIDTH, HEIGHT, GAP, ROW = 1.75, 0.66, 0.12, 1.0
"""Of boxes, the least room between two, and the distance of rows, in inches."""
MOST_IN_A_ROW = 4


def box_of(module: str) -> str | None:
    """The box that a module belongs to; None for the package's own files."""
    _root, *parts = module.split(".")
    if not parts or parts[0] in ("__main__", "train_command", "inspect_command"):
        return None
    if parts[0] == "integrations":
        return parts[1] if len(parts) > 1 else None
    return parts[0]


def imports() -> dict[str, set[str]]:
    """Which boxes each box imports, helpers and itself left out."""
    graph = grimp.build_graph(*ROOTS, cache_dir=None)
    found: dict[str, set[str]] = {}
    for module in graph.modules:
        box = box_of(module)
        if box is None or box in HELPERS:
            continue
        others = {box_of(imported) for imported in graph.find_modules_directly_imported_by(module)}
        found.setdefault(box, set()).update(other for other in others if other and other not in (box, *HELPERS))
    return found


def reached(box: str, arrows: dict[str, set[str]]) -> set[str]:
    """All boxes below a box.

    Raises:
        RecursionError: boxes import each other in a circle.
    """
    return set().union(*({other} | reached(other, arrows) for other in arrows[box]))


def reduced(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows without those that follow from others."""
    return {
        box: {other for other in others if not any(other in reached(third, arrows) for third in others - {other})}
        for box, others in arrows.items()
    }


def levels(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Boxes by the longest way down from them, the lowest first; a level of many is two rows."""
    depth = dict.fromkeys(arrows, 0)
    for box in sorted(arrows, key=lambda box: len(reached(box, arrows))):
        depth[box] = max((depth[other] + 1 for other in arrows[box]), default=0)
    rows = []
    for level in range(max(depth.values()) + 1):
        row = sorted(box for box in arrows if depth[box] == level)
        parts = -(-len(row) // MOST_IN_A_ROW)
        rows += [row[part::parts] for part in range(parts)]
    return rows


def places(rows: list[list[str]], arrows: dict[str, set[str]], width: float) -> dict[str, tuple[float, float]]:
    """Lower left corners; in each row boxes stand in the order of what they import, evenly spread."""
    placed: dict[str, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        below = {box: [placed[other][0] for other in arrows[box]] or [width / 2] for box in row}
        row = sorted(row, key=lambda box: (sum(below[box]) / len(below[box]), box))
        step = width / len(row)
        for i, box in enumerate(row):
            placed[box] = (step * (i + 0.5) - WIDTH / 2, ROW * (level + 1))
    return placed


def main() -> None:
    from matplotlib.patches import FancyBboxPatch

    arrows = reduced(imports())
    rows = levels(arrows)
    width = MOST_IN_A_ROW * (WIDTH + GAP)
    placed = places(rows, arrows, width)
    top = ROW * (len(rows) + 1)
    with plotting.drawing(PICTURE, plotting.PAGE_INCHES, plotting.PAGE_INCHES / width * (top + 1)) as figure:
        axes = figure.subplots()
        axes.set(xlim=(-0.1, width + 0.1), ylim=(-0.1, top + HEIGHT + 0.1))
        axes.axis("off")

        def box(x: float, y: float, wide: float, kind: str, title: str, text: str, high: float = HEIGHT) -> None:
            style = {"boxstyle": "round,pad=0.04", "fc": FILLS[kind], "ec": plotting.INK, "lw": 0.8}
            axes.add_patch(FancyBboxPatch((x, y), wide, high, **style, zorder=2))
            axes.text(x + 0.06, y + high - 0.06, title, va="top", weight="bold", family="monospace", zorder=3)
            axes.text(x + 0.06, y + 0.05, text, va="bottom", zorder=3)

        for i, (name, text) in enumerate(COMMANDS.items()):
            box(width * (i + 0.5) / len(COMMANDS) - 1.3 * WIDTH / 2, top, 1.3 * WIDTH, "top", name, text)
        for name, (x, y) in placed.items():
            box(x, y, WIDTH, "framework" if name in FRAMEWORKS else "own", name, TEXTS.get(name, ""))
            for other in arrows[name]:
                end = (placed[other][0] + WIDTH / 2, placed[other][1] + HEIGHT + 0.05)
                line = {"arrowstyle": "-|>", "color": plotting.PALE, "lw": 1.1}
                axes.annotate("", xy=end, xytext=(x + WIDTH / 2, y - 0.04), arrowprops=line, zorder=1)
        here = [name for name in HELPERS if any((PICTURE.parents[2] / "srwm_agents").glob(f"{name}*"))]
        lines = textwrap.wrap(", ".join(sorted(here)), 92)
        box(0, 0, width, "helper", "used by many", "\n".join(lines), 0.3 + 0.17 * len(lines))


if __name__ == "__main__":
    main()
