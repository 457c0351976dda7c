"""Reads the raw numbers of Procgen runs in procgen/: settings, curves, evaluations.

``procgen/NAME/`` holds what ``train_procgen.py --collect`` copied of the run NAME: ``curves.csv``, ``config.json`` and,
if it was evaluated, ``eval_*.csv``; what an agent of it was evaluated to earlier, or in full precision, lies in
``at_…M/``, what the mean of several agents' weights was evaluated to, in ``averaged/``, and what other such means were,
in ``averaged_…_…M/``. Curves may lack their beginning, or be missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from train_procgen import BASE, flags_of

RAW = Path(__file__).parent / "procgen"
RANDOM = RAW / "random" / "eval_sampled_episodes.csv"
RANDOM_MEMORY = RANDOM.parent / "memory" / "eval_sampled_episodes.csv"
"""``eval_rl.py --agent random``, and the same with the games and the distribution mode of memory mode."""
POLICIES = ("sampled", "greedy", "sampled_forget")
"""Kinds of evaluation; the last has its memory wiped before every step."""
FIRST_FRAMES = 3e6
"""Left out of each curve where a run begins or goes on: the first episodes to end are short, unlike the others."""
SHARE = 0.2
"""A run's score at a mark is its mean over this share of the frames before it; single rows are noisy."""
LONG = 40e6
"""Frames of a run that counts as long and has curves a game."""
COMMON = "batch_1536+lambda_95+linear+decay_95"
"""Changes that the longer runs share."""
CORES = {
    "SRWM": f"{COMMON}+no_softmax",
    "LSTM": f"{COMMON}+lstm",
    "feed-forward": f"{COMMON}+no_softmax+feedforward",
    "SRWM without carry-over": f"{COMMON}+no_softmax+no_carry",
    "DeltaNet": f"{COMMON}+no_softmax+delta",
    "Fake SR": f"{COMMON}+no_softmax+fake_sr",
    "SR-Delta": f"{COMMON}+no_softmax+sr_delta",
}
"""Runs that differ in their core alone."""
PRESET = {"SRWM, preset six_games": f"{COMMON}+no_softmax+unit_keys+critic+far+random_starts"}
"""The run whose settings became a preset."""
SECOND_SEEDS = {f"{name}, seed 2": f"{(PRESET | CORES)[name]}_seed2" for name in (*PRESET, "SRWM", "LSTM")}
AVERAGED = ", averaged"
"""What is added to a run's name for the mean of several of its agents' weights."""


@dataclass(frozen=True)
class Evaluation:
    """What an agent was evaluated to: a row a game and split, and a row an episode."""

    millions: str
    policy: str
    games: pd.DataFrame
    episodes: pd.DataFrame


@dataclass(frozen=True)
class Run:
    """One training run: a row every few seconds and game, each over the game's latest 100 episodes; perhaps none."""

    name: str
    config: dict[str, Any]
    curves: pd.DataFrame
    evaluations: list[Evaluation]
    """Of its last agent."""
    earlier: list[Evaluation]
    averaged: list[Evaluation]
    """Of the mean of several agents' weights, its last one among them."""

    @property
    def settings(self) -> str:
        """The name of all runs that differ from this one in nothing but what follows "_seed"."""
        return self.name.partition("_seed")[0]

    @property
    def command(self) -> str:
        """What trains such an agent, but for the names of folders."""
        if self.settings in PRESET.values():
            return f"train_rl.py --preset six_games --seed {self.config['seed']}"
        flags = {"train_for_env_steps": self.config["train_for_env_steps"], **BASE, **flags_of(self.settings)}
        given = " ".join(f"--{key}={value}" for key, value in flags.items())
        return f"train_rl.py --preset fast --seed {self.config['seed']} {given}"

    @property
    def label(self) -> str:
        """The core, and what the run changes beside the common changes (all of its name if it lacks those)."""
        if not self.name.startswith(COMMON):
            return self.name
        core: str = self.config["core"].removeprefix("srwm_")
        changes = self.settings.removeprefix(COMMON).removeprefix("+").split("+")
        seed = self.name.removeprefix(self.settings).replace("_", " ")
        return "+".join([core, *(change for change in changes if change not in ("", core))]) + seed

    @property
    def in_memory_mode(self) -> bool:
        return self.config["distribution_mode"] == "memory"

    @property
    def of_one_game(self) -> bool:
        return "," not in self.config["games"]

    @property
    def long(self) -> bool:
        return self.curves["frames"].max() >= LONG

    @property
    def whole(self) -> bool:
        """Whether the curves begin where training did."""
        return self.curves["frames"].min() < 2 * FIRST_FRAMES

    def smooth(self) -> pd.Series:
        """The normalised mean over games, of five rows each, by (frames, seconds)."""
        wide = self.curves.pivot_table(index=["frames", "seconds"], columns="game", values="normalised_score").dropna()
        return wide.mean(axis=1).rolling(5, min_periods=1).mean()

    def window(self, frames: float) -> pd.DataFrame | None:
        """The rows of a mark's share (None if the curves do not reach over it)."""
        if not (self.curves["frames"].min() <= (1 - SHARE) * frames and self.curves["frames"].max() >= 0.98 * frames):
            return None
        return self.curves[self.curves["frames"].between((1 - SHARE) * frames, frames)]

    def at(self, frames: float) -> pd.Series | None:
        """Mean return of each game and the normalised mean (None if the curves do not reach over the mark)."""
        part = self.window(frames)
        if part is None:
            return None
        means = part.groupby("game", sort=False)[["mean_return", "normalised_score"]].mean()
        return pd.concat([means["mean_return"], pd.Series({"normalised": means["normalised_score"].mean()})])


def evaluations(folder: Path, millions: str) -> list[Evaluation]:
    """Those that lie in a folder."""
    return [
        Evaluation(millions, policy, pd.read_csv(file), pd.read_csv(folder / f"eval_{policy}_episodes.csv"))
        for policy in POLICIES
        if (file := folder / f"eval_{policy}.csv").is_file()
    ]


def read_curves(file: Path) -> pd.DataFrame:
    """A run's rows without the first frames of each of its parts; none if there is no file."""
    if not file.is_file():
        return pd.DataFrame({"frames": [], "seconds": [], "game": [], "mean_return": [], "normalised_score": []})
    curves = pd.read_csv(file)
    # A run that goes on counts its episodes anew.
    part = (curves.groupby("frames")["episodes"].sum().diff() < 0).cumsum().reindex(curves["frames"]).to_numpy()
    return curves[curves["frames"] >= curves.groupby(part)["frames"].transform("min") + FIRST_FRAMES]


def last_millions(file: Path) -> str:
    """Of a curve's last row; empty if there is no file."""
    return f"{pd.read_csv(file)['frames'].iloc[-1] / 1e6:.0f}" if file.is_file() else ""


def runs() -> list[Run]:
    """All that were collected."""
    found = []
    for folder in sorted(RAW.iterdir()):
        if (folder / "config.json").is_file():
            config, curves = json.loads((folder / "config.json").read_text()), read_curves(folder / "curves.csv")
            millions = last_millions(folder / "curves.csv")
            last, averaged = evaluations(folder, millions), evaluations(folder / "averaged", millions)
            earlier = []
            for at in sorted(folder.glob("at_*M*"), key=lambda at: int(at.name.removeprefix("at_").partition("M")[0])):
                then, _, precision = at.name.removeprefix("at_").partition("M")
                earlier += evaluations(at, f"{then}, full precision" if precision == "_full" else then)
            for mean in sorted(folder.glob("averaged_*M")):
                frames = mean.name.removeprefix("averaged_").removesuffix("M").split("_")
                earlier += evaluations(mean, " and ".join(frames) + AVERAGED)
            found.append(Run(folder.name, config, curves, last, earlier, averaged))
    return found
