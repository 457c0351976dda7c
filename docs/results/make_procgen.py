"""Makes the tables and pictures of procgen.md from the raw numbers in procgen/.

    python docs/results/make_procgen.py

``procgen/NAME/`` holds what ``train_procgen.py --collect`` copied of the run NAME: ``curves.csv``, ``config.json`` and,
if it was evaluated, ``eval_*.csv``. The cards of the agents that are shipped are written beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from train_procgen import AGENTS, SHIPPED, flags_of

from envs import PAPER_GAMES

HERE = Path(__file__).parent
RAW = HERE / "procgen"
POLICIES = ("sampled", "greedy", "sampled_forget")
"""Kinds of evaluation; the last has its memory wiped before every step."""
MARKS = (7e6, 10e6, 20e6, 35e6, 70e6)
"""Frames at which runs are compared."""
FIRST_FRAMES = 3e6
"""Where curves begin: the first episodes to end are the short ones, which are not like the others."""
SHARE = 0.2
"""A run's score at a mark is its mean over this share of the frames before it; single rows are noisy."""


@dataclass(frozen=True)
class Run:
    """One training run: a row every few seconds and game, each over the game's latest 100 episodes."""

    name: str
    config: dict[str, Any]
    curves: pd.DataFrame
    evaluations: dict[str, pd.DataFrame]

    @property
    def flags(self) -> str:
        flags = flags_of(self.name.rpartition("_seed")[0] if "_seed" in self.name else self.name)
        return " ".join(f"`--{key}={value}`" for key, value in flags.items()) or "none"

    def at(self, frames: float) -> pd.Series | None:
        """Mean return of each game and the normalised mean (None if the run was not that long)."""
        if self.curves["frames"].max() < 0.98 * frames:
            return None
        part = self.curves[self.curves["frames"].between((1 - SHARE) * frames, frames)]
        means = part.groupby("game", sort=False)[["mean_return", "normalised_score"]].mean()
        return pd.concat([means["mean_return"], pd.Series({"normalised": means["normalised_score"].mean()})])


def runs() -> list[Run]:
    """All that were collected."""
    found = []
    for folder in sorted(RAW.iterdir()):
        if (folder / "curves.csv").is_file():
            found.append(
                Run(
                    folder.name,
                    json.loads((folder / "config.json").read_text()),
                    pd.read_csv(folder / "curves.csv"),
                    {p: pd.read_csv(file) for p in POLICIES if (file := folder / f"eval_{p}.csv").is_file()},
                )
            )
    return found


def training_table(found: list[Run]) -> Iterator[str]:
    """Scores on training levels, at every mark that a run has reached."""
    for mark in MARKS:
        rows = [(run, at) for run in found if (at := run.at(mark)) is not None]
        if not rows:
            continue
        games = [game for game in rows[0][1].index if game != "normalised"]
        yield f"**After {mark / 1e6:.0f}M frames**\n"
        yield f"| run | flags beside `BASE` | seed | {' | '.join(games)} | normalised |"
        yield "|---" * (len(games) + 4) + "|"
        for run, at in sorted(rows, key=lambda row: -row[1]["normalised"]):
            returns = " | ".join(f"{at[game]:.2f}" for game in games)
            yield f"| {run.name} | {run.flags} | {run.config['seed']} | {returns} | {at['normalised']:.3f} |"
        yield ""


def evaluation_table(found: list[Run]) -> Iterator[str]:
    """Normalised scores of saved agents, mean over games, by policy and range of levels."""
    if not any(run.evaluations for run in found):
        yield "None yet.\n"
        return
    yield "| run | million frames | actions | levels | normalised score, mean over games | episodes a game |"
    yield "|---" * 6 + "|"
    for run in found:
        for policy, games in run.evaluations.items():
            for split, part in games.groupby("split", sort=False):
                yield (
                    f"| {run.name} | {run.curves['frames'].max() / 1e6:.0f} | {policy} | {split} "
                    f"| {part['normalised_score'].mean():.3f} | {part['episodes'].min():,} |"
                )
    yield ""


def growth_table() -> Iterator[str]:
    """What ``state_growth.py`` found."""
    growth = json.loads((RAW / "growth.json").read_text())
    yield f"| | {' | '.join(f'{steps:,}' for steps in growth['steps'])} steps |"
    yield "|---" * (len(growth["steps"]) + 1) + "|"
    for name, sizes in growth["shift"].items():
        cells = (f"{size:.3f}" if size < 100 else f"{size:.0e}" for size in sizes)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def draw_scores(found: list[Run], file: Path) -> None:
    """Returns of saved agents on unseen levels, a panel a game and a bar a run; sampled actions, 95 % intervals."""
    evaluated = [run for run in found if "sampled" in run.evaluations]
    random = pd.read_csv(HERE / "fast" / "random.csv").set_index("game")
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for panel, game in zip(panels, PAPER_GAMES, strict=True):
        for i, run in enumerate(evaluated):
            rows = run.evaluations["sampled"]
            unseen = rows[(rows["game"] == game) & rows["split"].str.startswith("test")]
            if unseen.empty:
                continue
            mean = unseen["return"].mean()
            # Splits are independent samples: the mean's half-width shrinks with their number.
            half = ((unseen["return_high"] - unseen["return_low"]) / 2).pow(2).sum() ** 0.5 / len(unseen)
            panel.bar(i, mean, yerr=half, color=mpl.color_sequences["tab10"][i % 10], label=run.name, width=0.8)
        panel.axhline(random.loc[game, "return"], color="black", lw=1, ls=":", label="random policy, training levels")
        panel.set_title(game, fontsize=9)
        panel.set_xticks([])
        panel.grid(alpha=0.3, axis="y")
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=7, ncols=3)
    figure.suptitle("Mean return on unseen levels", fontsize=10)
    figure.savefig(file, dpi=110)


def draw_curves(found: list[Run], file: Path) -> None:
    """The normalised mean over games, over frames, a line a run."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axis = figure.subplots()
    for i, run in enumerate(found):
        wide = run.curves.pivot_table(index="frames", columns="game", values="normalised_score").dropna()
        wide = wide[wide.index >= FIRST_FRAMES]
        mean = wide.mean(axis=1).rolling(5, min_periods=1).mean()
        axis.plot(mean.index / 1e6, mean, color=mpl.color_sequences["tab20"][i % 20], lw=1.5, label=run.name)
    axis.set_xlabel("million frames")
    axis.set_ylabel("normalised score, training levels")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, fontsize=7, ncols=2)
    figure.savefig(file, dpi=110)


def card(name: str, run: Run) -> str:
    """The model card of a shipped agent."""
    agent = json.loads((AGENTS / name / "config.json").read_text())["agent"]
    played, trained = agent["environment"], agent["training"]
    games = ", ".join(played["games"])
    levels = f"levels {played['start_level']}-{played['start_level'] + played['num_levels'] - 1}"
    lines = [
        f"# {name}",
        "",
        f"One agent for {games} ({played['distribution_mode']}, {levels}), memory: {agent['core']}.",
        "",
        f"- **Trained** with `train_rl.py --preset fast` and {run.flags} for {trained['frames'] / 1e6:.1f} million "
        f"frames ({trained['updates']:,} updates), seed {trained['seed']}. Learning curve and settings: "
        f"docs/results/procgen/{run.name}.",
        "- **Weights**: half precision; the licence is this project's.",
        "- **Not for** anything but these games; on other levels than its own it is as good as the table says.",
        "",
        "| actions | levels | game | return | 95 % interval | normalised | episodes |",
        "|---|---|---|---|---|---|---|",
    ]
    for policy, table in run.evaluations.items():
        lines += [
            f"| {policy} | {row['split']} | {row['game']} | {row['return']:.2f} "
            f"| {row['return_low']:.2f}, {row['return_high']:.2f} | {row['normalised_score']:.3f} | {row['episodes']} |"
            for row in table.to_dict("records")
        ]
    command = f"python eval_rl.py --agent agents/procgen/{name} --splits train,validation,test"
    watch = f"python eval_rl.py --agent agents/procgen/{name} --episodes 10 --video"
    return "\n".join(
        [*lines, "", "Reproduce, and watch it on unseen levels:", "", f"    {command}", f"    {watch}", ""]
    )


def main() -> None:
    found = runs()
    names = {run.name: run for run in found}
    for name, run in SHIPPED.items():
        if (AGENTS / name).is_dir() and run in names:
            (AGENTS / name / "README.md").write_text(card(name, names[run]))
    page = HERE / "procgen.md"
    text = page.read_text()
    tables = {"training": training_table(found), "growth": growth_table(), "evaluation": evaluation_table(found)}
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: made by make_procgen.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}"
    page.write_text(text)
    draw_curves(found, RAW / "curves.png")
    if any("sampled" in run.evaluations for run in found):
        draw_scores(found, RAW / "scores.png")


if __name__ == "__main__":
    main()
