"""Write the tables of this study's README.md from the raw numbers beside it.

python -m experiments.procgen.learnable.table [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.runs import CURVES

HERE = Path(__file__).resolve().parent
RUNS = HERE.parent / "runs"
README = HERE / "README.md"
SCRIPT = "table.py"
PRESET = {"num_workers": 2, "num_envs_per_worker": 768, "rollout": 32, "batch_size": 1536}
MILLION = 1_000_000


def flag(command: str, name: str) -> int:
    """A whole number from a command line, or the preset's."""
    words = command.replace("=", " ").split()
    return int(words[words.index(f"--{name}") + 1]) if f"--{name}" in words else PRESET[name]


def around(curves: pd.DataFrame, million: int) -> str:
    """The mean return over the million frames before ``million``, or a dash where training had ended before."""
    if curves["frames"].iloc[-1] < (million - 0.1) * MILLION:
        return "–"
    inside = curves[(curves["frames"] > (million - 1) * MILLION) & (curves["frames"] <= million * MILLION)]
    return f"{inside['mean_return'].mean():.1f}"


def cell(summary: dict[str, Any], name: str) -> str:
    """A number of ``summary.json``, or a dash."""
    return f"{summary[name]:.1f}" if name in summary else "–"


def row(folder: Path, millions: list[int], *, short: bool = False) -> str:
    """One run."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    curves = pd.read_csv(folder / CURVES)
    command = config["command"]
    games = flag(command, "num_workers") * flag(command, "num_envs_per_worker")
    cells = [folder.name, str(config["seed"]), f"{games:,}", str(flag(command, "rollout"))]
    cells += [cell(summary, "age_in_updates"), f"{summary['frames'] / MILLION:.1f}"]
    cells += [around(curves, million) for million in millions]
    if not short:
        cells += [cell(summary, name) for name in ("final_return", "low", "high")]
        found = summary.get("validation", {})
        cells += [cell(found, name) for name in ("return", "return_low", "return_high")]
    return "| " + " | ".join(cells) + " |"


def score_row(folder: Path, millions: list[int]) -> str:
    """One run on the six games: mean normalised score in training, over games."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    curves = pd.read_csv(folder / CURVES).rename(columns={"normalised_score": "score"})
    command = config["command"]
    games = flag(command, "num_workers") * flag(command, "num_envs_per_worker")
    cells = [
        folder.name,
        str(config["seed"]),
        f"{games:,}",
        str(flag(command, "rollout")),
        cell(summary, "age_in_updates"),
    ]
    for million in millions:
        inside = curves[(curves["frames"] > (million - 2) * MILLION) & (curves["frames"] <= million * MILLION)]
        cells.append(f"{inside['score'].mean():.3f}")
    reached = curves[curves["frames"] >= millions[-1] * MILLION]["seconds"].iloc[0]
    return "| " + " | ".join([*cells, f"{reached:.0f}"]) + " |"


def score_table(folders: list[Path], millions: list[int]) -> str:
    """A table of runs on the six games."""
    head = ["run", "seed", "games in flight", "rollout", "age", *(f"{million}M" for million in millions)]
    head.append(f"seconds to {millions[-1]}M")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(score_row(folder, millions) for folder in folders)])


def table(names: list[str], millions: list[int], *, short: bool = False) -> str:
    """A table of runs."""
    head = ["run", "seed", "games in flight", "rollout", "age", "frames, M", *(f"{million}M" for million in millions)]
    head += [] if short else ["last 2M", "low", "high", "validation", "low", "high"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(row(HERE / name, millions, short=short) for name in names)])


def texts() -> str:
    """README.md with its tables made anew."""
    tables = {
        "plunder": table(
            ["few_games", "few_games_seed2", "few_games_lambda", "few_games_old_16", "few_games_old_32", "many_games",
             "long_rollout", "long_rollout_seed2", "two_batches_256", "two_batches_256_seed2", "two_batches_128",
             "pending_0", "pending_0_batch_3072", "nearly_on_policy", "nearly_on_policy_seed2", "rollout_128"],
            [8, 10, 12, 16, 20],
        ),
        "other settings": table(
            ["few_games_return_norm", "few_games_epochs_3", "long_rollout_feedforward", "pending_0_games_64"],
            [8, 10, 12, 16, 20],
        ),
        "other games": table(
            ["leaper_few_games", "leaper_many_games", "maze_few_games", "maze_many_games", "bigfish_two_batches_256"],
            [3, 5, 7, 9, 14, 18],
            short=True,
        ),
        "six games": score_table(
            [RUNS / "six_games", RUNS / "six_games_seed2", HERE / "six_games_rollout_128"], [10, 20, 30, 40]
        ),
    }  # fmt: skip
    text = README.read_text()
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: made by {SCRIPT} -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{lines}\n\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    """Write, or with ``--check`` compare; 1 if the page is not what the raw numbers give."""
    made = texts()
    if "--check" in sys.argv[1:]:
        return int(README.read_text() != made)
    README.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
