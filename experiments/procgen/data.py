"""Reads the runs behind README.md and RUNS.md: recipes, curves, evaluations.

``runs/NAME/`` is a run (``experiments.runs`` says what its files hold), and ``recipes/`` has the settings that runs are
named by. Curves may lack their beginning, or be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.recipes import read_yaml, resolve
from experiments.runs import CURVES, read_episodes, read_summary
from srwm_agents.envs import PAPER_GAMES

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"
RUNS = HERE / "runs"
RANDOM, RANDOM_MEMORY = RUNS / "random", RUNS / "random_memory"
"""``eval_rl.py --agent random``, and the same with the games and the distribution mode of memory mode."""
POLICIES = ("sampled", "greedy", "sampled_forget")
"""Kinds of evaluation; the last has its memory wiped before every step."""
FIRST_FRAMES = 3e6
"""Left out of each curve where a run begins or goes on: the first episodes to end are short, unlike the others."""
SHARE = 0.2
"""A run's score at a mark is its mean over this share of the frames before it; single rows are noisy."""
LONG = 40e6
"""Frames of a run that counts as long and has curves a game."""
CORES = {
    "SRWM": "no_softmax",
    "LSTM": "lstm",
    "feed-forward": "feedforward",
    "SRWM without carry-over": "no_carry",
    "DeltaNet": "delta",
    "Fake SR": "fake_sr",
    "SR-Delta": "sr_delta",
}
"""Runs that differ in their core alone."""
PRESET = {"SRWM, preset six_games": "six_games"}
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
    """What ``config.yaml`` holds."""
    settings: dict[str, Any]
    """Those of its recipe and its own, on top of preset ``fast``."""
    curves: pd.DataFrame
    evaluations: list[Evaluation]
    """Of its last agent."""
    earlier: list[Evaluation]
    averaged: list[Evaluation]
    """Of the mean of several agents' weights, its last one among them."""

    @property
    def recipe(self) -> str:
        return self.config["recipe"]

    @property
    def command(self) -> str:
        """What trains such an agent, but for the names of folders."""
        if self.recipe in PRESET.values():
            # The preset has a true lambda since; these runs had a clip of the trace in its place.
            return f"train_rl.py --preset six_games --vtrace_c 0.95 --vtrace_lambda 1 --seed {self.config['seed']}"
        flags = {"train_for_env_steps": self.config["train_for_env_steps"], **self.settings}
        given = " ".join(f"--{key}={value}" for key, value in flags.items())
        return f"train_rl.py --preset fast --seed {self.config['seed']} {given}"

    @property
    def in_memory_mode(self) -> bool:
        return mode_of(self.settings) == "memory"

    @property
    def of_one_game(self) -> bool:
        return "," not in self.settings.get("games", ",".join(PAPER_GAMES))

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


def mode_of(settings: dict[str, Any]) -> str:
    """The distribution mode of the games."""
    return settings.get("distribution_mode", "easy")


def random_episodes(folder: Path, mode: str = "easy") -> pd.DataFrame:
    """The episodes of a random policy."""
    return read_episodes(folder, mode)["last"]["sampled"]


def read_curves(file: Path) -> pd.DataFrame:
    """A run's rows without the first frames of each of its parts; none if there is no file."""
    if not file.is_file():
        return pd.DataFrame({"frames": [], "seconds": [], "game": [], "mean_return": [], "normalised_score": []})
    curves = pd.read_csv(file)
    # A run that goes on counts its episodes anew.
    part = (curves.groupby("frames")["episodes"].sum().diff() < 0).cumsum().reindex(curves["frames"]).to_numpy()
    return curves[curves["frames"] >= curves.groupby(part)["frames"].transform("min") + FIRST_FRAMES]


def described(stage: dict[str, Any]) -> str:
    """A stage's frames in millions, as tables have them."""
    if "million_frames" not in stage:
        return " and ".join(map(str, stage["mean_of"])) + AVERAGED
    precision = ", full precision" if stage.get("precision") == "full" else ""
    return f"{stage['million_frames']}{precision}"


def read_run(folder: Path) -> Run:
    """One run's files."""
    config = read_yaml(folder / "config.yaml")
    settings = resolve(config["recipe"], RECIPES).settings | config["settings"]
    games, episodes = read_summary(folder), read_episodes(folder, mode_of(settings))
    of_stage = {
        stage: [
            Evaluation(described(about), policy, games[stage][policy], episodes[stage][policy])
            for policy in POLICIES
            if policy in games[stage]
        ]
        for stage, about in config["evaluations"].items()
    }
    last, averaged = of_stage.pop("last", []), of_stage.pop("averaged", [])
    earlier = [evaluation for stage in of_stage.values() for evaluation in stage]
    return Run(folder.name, config, settings, read_curves(folder / CURVES), last, earlier, averaged)


def runs() -> list[Run]:
    """All training runs, in the order of the names that they were trained under."""
    folders = [folder for folder in RUNS.iterdir() if (folder / "config.yaml").is_file()]
    found = [read_run(folder) for folder in folders if folder not in (RANDOM, RANDOM_MEMORY)]
    return sorted(found, key=lambda run: run.config.get("trained_as", run.name))
