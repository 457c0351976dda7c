"""Write the table of this folder's README.md from the summaries beside it.

python -m experiments.procgen.six_games.table [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import yaml

from experiments.pages import Texts, fill, run

HERE = Path(__file__).parent
README = HERE / "README.md"
RANGES = {
    "levels 500-699": ["levels 500-699"],
    "levels 1000-1199, 1200-1399, 1400-1599": ["levels 1000-1199", "levels 1200-1399", "levels 1400-1599"],
    "levels 50000-50199": ["levels 50000-50199"],
}


def score(rows: pd.DataFrame) -> str:
    """Mean normalised score over games and ranges, with its 95 % interval.

    Single episodes were not kept: the interval is that of a mean of independent means, whose own intervals are known.
    """
    half = (rows["normalised_score_high"] - rows["normalised_score_low"]) / 2
    mean, half_of_mean = rows["normalised_score"].mean(), (half**2).sum() ** 0.5 / len(rows)
    return f"{mean:.3f} ({mean - half_of_mean:.3f} to {mean + half_of_mean:.3f})"


def lines() -> Iterator[str]:
    yield f"| agent | million frames | {' | '.join(RANGES)} |"
    yield "|---|---|" + "---|" * len(RANGES)
    for folder in sorted(file.parent for file in HERE.glob("*/summary.json")):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        summary = json.loads((folder / "summary.json").read_text())["last"]["sampled"]
        rows = pd.DataFrame(summary["rows"], columns=summary["columns"])
        cells = []
        for ranges in RANGES.values():
            inside = rows[rows["split"].isin(ranges) & rows["game"].ne("mean")]
            cells.append(score(inside) if len(inside) else "–")
        frames = f"{config['frames'] / 1e6:.1f}" if "frames" in config else "–"
        yield f"| {folder.name} | {frames} | {' | '.join(cells)} |"


def texts() -> Texts:
    return {README: fill(README, "experiments.procgen.six_games.table", {"scores": lines()})}


if __name__ == "__main__":
    sys.exit(run(__doc__, texts, lambda: None))
