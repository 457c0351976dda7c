"""The tables and the picture of README.md in this folder, from the runs' raw numbers beside it.

python -m experiments.procgen.critic.table
python -m experiments.procgen.critic.table --check
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import pages
from experiments.recipes import read_yaml
from experiments.runs import CURVES
from srwm_agents.plotting import drawing

HERE = Path(__file__).parent
README = HERE / "README.md"
SCRIPT = "experiments.procgen.critic.table"
MILLION = 1_000_000
ONE_GAME = (
    "plain", "plain_in_step", "plain_999", "plain_99", "every_8", "every_8_999", "rate_eighth",
    "rate_eighth_baseline", "every_8_no_advantages", "value_gradient_03", "value_gradient_1", "plain_value_gradient",
    "shared", "plain_feedforward", "rate_eighth_feedforward", "plain_lstm",
)  # fmt: skip
FAST = (
    "every_8_999_fast", "every_8_999_fast_seed2", "eighth_baseline_fast", "plain_25", "rate_eighth_64",
    "rate_eighth_64_seed2",
)  # fmt: skip
BEFORE = Path("..") / "learnable" / "six_games_rollout_128"
SIX = (
    BEFORE, Path("six_games_plain"), Path("six_games_value_coeffs"), Path("six_games_rate_eighth"),
    Path("six_games_every_2"), Path("six_games_every_8"), Path("six_games_64"), Path("six_games_64_mirror"),
)  # fmt: skip
DEFAULTS = {"critic_every": "1", "critic_lr_scale": "1", "advantage_loss_coeff": ".25", "game_gammas": "plunder=.997"}
"""Of the settings in which the runs differ."""
EARLY = (2.0, 4.5)
"""Million frames, in which no run has learned much yet."""
DRAWN = {
    "rate_eighth_64": "critic's learning rate 1/8, rollouts of 64, to 25M",
    "rate_eighth_64_seed2": "the same, seed 2",
    "rate_eighth": "critic's learning rate 1/8",
    "every_8": "critic learns in 1 of 8 iterations",
    "plain_25": "critic as fast as the policy, to 25M",
    "every_8_no_advantages": "1 of 8, policy predicts no advantages",
}

DRAWN_OF_SIX = {
    "six_games_plain": "critic as fast as the policy",
    "six_games_value_coeffs": "slow in bigfish, plunder",
    "six_games_64": "the same, rollouts of 64",
    "six_games_64_mirror": "and mirror images",
}


def flag(command: str, name: str) -> str:
    """A flag's value on a command line, or its default there."""
    words = command.split()
    return words[words.index(f"--{name}") + 1] if f"--{name}" in words else DEFAULTS[name]


def mean_between(table: pd.DataFrame, column: str, low: float, high: float) -> float:
    """The mean of a column over the frames from ``low`` to ``high``, both in millions."""
    inside = table[(table["frames"] > low * MILLION) & (table["frames"] <= high * MILLION)]
    return float(inside[column].mean())


def reached(curves: pd.DataFrame, million: float) -> bool:
    """Whether a run came so far."""
    return bool(curves["frames"].iloc[-1] >= (million - 0.3) * MILLION)


def row(name: str, millions: Sequence[int], window: int) -> str:
    """One run on plunder."""
    config = read_yaml(HERE / name / "config.yaml")
    summary: dict[str, Any] = json.loads((HERE / name / "summary.json").read_text())
    curves, learner = pd.read_csv(HERE / name / CURVES), pd.read_csv(HERE / name / "learner.csv.xz")
    command = config["command"]
    coefficient = float(flag(command, "advantage_loss_coeff"))
    cells = [name, str(config["seed"]), flag(command, "game_gammas").partition("=")[2]]
    cells += [f"{summary['frames'] / MILLION:.1f}", f"{summary['frames_per_second']:,}"]
    for million in millions:
        mean = mean_between(curves, "mean_return", million - window, million)
        cells.append(f"{mean:.1f}" if reached(curves, million) else "–")
    cells.append(f"{curves['mean_return'].max():.1f}")
    share = 1 - mean_between(learner, "advantage_loss", *EARLY) / (coefficient or 1)
    has_head = coefficient > 0 and "--critic shared" not in command
    cells.append(f"{100 * share:.1f}" if has_head else "–")
    cells.append(f"{mean_between(learner, 'grad_norm', *EARLY):.2f}")
    return "| " + " | ".join(cells) + " |"


def table(names: Sequence[str], millions: Sequence[int], window: int) -> Iterator[str]:
    """A table of runs on plunder: mean returns over the ``window`` million frames before each mark."""
    head = ["run", "seed", "gamma", "frames, M", "frames/s", *(f"{million}M" for million in millions)]
    head += ["best", "predicted, %", "gradient"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for name in names:
        yield row(name, millions, window)


def six_table(millions: Sequence[int]) -> Iterator[str]:
    """A table of runs on the six games: mean normalised scores in training."""
    head = ["run", "frames/s", *(f"{million}M" for million in millions)]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for folder in SIX:
        summary = json.loads((HERE / folder / "summary.json").read_text())
        curves = pd.read_csv(HERE / folder / CURVES)
        scores = [
            f"{mean_between(curves, 'normalised_score', million - 2, million):.3f}" if reached(curves, million) else "–"
            for million in millions
        ]
        yield "| " + " | ".join([folder.name, f"{summary['frames_per_second']:,}", *scores]) + " |"


def game_table(low: float, high: float) -> Iterator[str]:
    """The six games' normalised scores in training, means over some million frames, of the runs that came so far."""
    games: list[str] = []
    for folder in SIX:
        curves = pd.read_csv(HERE / folder / CURVES)
        if not reached(curves, high):
            continue
        if not games:
            games = list(curves["game"].unique())
            yield "| run | " + " | ".join([*games, "mean"]) + " |"
            yield "|" + "---|" * (len(games) + 2)
        scores = [mean_between(curves[curves["game"] == game], "normalised_score", low, high) for game in games]
        cells = [f"{score:.3f}" for score in [*scores, sum(scores) / len(scores)]]
        yield "| " + " | ".join([folder.name, *cells]) + " |"


def texts() -> pages.Texts:
    """README.md with its tables made anew."""
    tables = {
        "plunder": table(ONE_GAME, [4, 6, 8, 10, 12, 14], 1),
        "full speed": table(FAST, [8, 12, 16, 20, 22, 24, 26], 2),
        "six games": six_table([10, 20, 30, 40, 50, 60]),
        "games": game_table(35, 40),
        "later games": game_table(55, 60),
    }
    return {README: pages.fill(README, SCRIPT, tables)}


def draw() -> None:
    """The learning curves of the runs that tell what is needed, on plunder and on the six games."""
    with drawing(HERE / "plunder.png", 9.5, 3.8) as figure:
        axes = figure.subplots()
        for name, label in DRAWN.items():
            curves = pd.read_csv(HERE / name / CURVES)
            axes.plot(curves["frames"] / MILLION, curves["mean_return"].rolling(3, min_periods=1).mean(), label=label)
        axes.axhline(4.2, color="grey", linestyle=":", linewidth=1)
        axes.annotate("random policy", (25, 4.2), xytext=(0, -3), textcoords="offset points", va="top", ha="right")
        axes.set(xlabel="frames, millions", ylabel="return in training", title="Plunder")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with drawing(HERE / "six_games.png", 7.0, 4.2) as figure:
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for folder, label in DRAWN_OF_SIX.items():
            curves = pd.read_csv(HERE / folder / CURVES)
            curves = curves[curves["frames"] <= 66 * MILLION]
            for axes, (game, rows) in zip(panels.flat, curves.groupby("game"), strict=True):
                smooth = rows["normalised_score"].rolling(3, min_periods=1).mean()
                axes.plot(rows["frames"] / MILLION, smooth, label=label)
                axes.set_title(game)
        panels[0, 0].legend()
        figure.supxlabel("frames of all games, millions")
        figure.supylabel("normalised score in training")


if __name__ == "__main__":
    raise SystemExit(pages.run(__doc__, texts, draw))
