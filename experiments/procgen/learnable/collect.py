"""Copy what training and evaluation left in a folder of experiments into this study: one small folder a run.

    python experiments/procgen/learnable/collect.py FOLDER

Each run gets ``config.yaml`` (flags, settings, seed, commit, machine), ``curves.csv`` (as training wrote it),
``learner.csv`` (some of the learner's summaries), ``summary.json`` and, where an agent was evaluated,
``episodes.csv.xz``.
"""

from __future__ import annotations

import argparse
import json
import lzma
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

HERE = Path(__file__).resolve().parent
COMMIT = "13e1812"
PATCH = "patches/lambda_and_age.patch"
SCALARS = ("version_diff_avg", "version_diff_min", "version_diff_max", "kl_divergence", "entropy", "grad_norm",
           "value_loss", "lr")  # fmt: skip
LEFT_OUT = {"train_dir", "experiment", "command_line", "cli_args", "git_hash", "git_repo_name", "help", "log_console"}
"""Settings that say where a run was made, not what it was."""
WINDOW = 2_000_000
"""Frames at a curve's end over which the final return is a mean."""


def final_return(curves: pd.DataFrame) -> dict[str, float]:
    """The mean over the last WINDOW frames of training, with its 95 % interval over episodes.

    A row of the curves is the mean of the latest 100 episodes. Rows in which fewer than 100 episodes are new are left
    out, so that the rest have no episode in common and the deviation between them is that of means of 100.
    """
    last = curves[curves["frames"] > curves["frames"].iloc[-1] - WINDOW]
    apart: list[float] = []
    counted = -100
    for episodes, mean_return in zip(last["episodes"].tolist(), last["mean_return"].tolist(), strict=True):
        if episodes >= counted + 100:
            apart.append(mean_return)
            counted = episodes
    half = 1.96 * statistics.stdev(apart) / len(apart) ** 0.5
    mean = statistics.fmean(apart)
    return {"final_return": round(mean, 3), "low": round(mean - half, 3), "high": round(mean + half, 3)}


def learner_scalars(run: Path) -> pd.DataFrame:
    """Some of the learner's summaries, of the first minibatch of a training iteration each."""
    events = EventAccumulator(str(next(run.glob(".summary/0/events*"))), size_guidance={"scalars": 0})
    events.Reload()
    columns = {name: {event.step: event.value for event in events.Scalars(f"train/{name}")} for name in SCALARS}
    return pd.DataFrame(columns).rename_axis("frames").reset_index()


def validation(run: Path, target: Path) -> dict[str, Any] | None:
    """What the evaluation found, if there was one; its episodes go to ``episodes.csv.xz``."""
    reports = run / "evaluation"
    if not (reports / "eval_sampled.csv").is_file():
        return None
    episodes = (reports / "eval_sampled_episodes.csv").read_text()
    (target / "episodes.csv.xz").write_bytes(lzma.compress(episodes.encode(), preset=9))
    row = pd.read_csv(reports / "eval_sampled.csv").iloc[0]
    names = ("episodes", "return", "return_low", "return_high", "normalised_score")
    numbers = {name: round(float(row[name]), 3) for name in names}
    return {"levels": "500-699", "policy": "sampled", "device": "cpu", **numbers}


def collect(run: Path, machine: list[str], share: str) -> None:
    """One run's folder."""
    target = HERE / run.name
    target.mkdir(exist_ok=True)
    settings = json.loads((run / "config.json").read_text())
    flags = [flag for flag in settings["command_line"].split() if not flag.startswith(("--experiment", "--train_dir"))]
    config = {
        "command": " ".join(["train_rl.py", *flags]),
        "game": settings["games"],
        "seed": settings["seed"],
        "commit": COMMIT,
        "patch": PATCH,
        "machine": share,
        "versions": machine,
        "settings": {name: value for name, value in settings.items() if name not in LEFT_OUT},
    }
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, width=110))
    curves = pd.read_csv(run / "curves.csv")
    (target / "curves.csv").write_text((run / "curves.csv").read_text().replace("\r\n", "\n"))
    learner = learner_scalars(run)
    learner.to_csv(target / "learner.csv", index=False, float_format="%.5g")
    write_summary(target, curves, learner, validation(run, target))


def write_summary(
    target: Path, curves: pd.DataFrame, learner: pd.DataFrame | None, evaluated: dict[str, Any] | None
) -> None:
    """``summary.json``."""
    first, last = curves.iloc[0], curves.iloc[-1]
    summary: dict[str, Any] = {
        "frames": int(last["frames"]),
        "seconds": float(last["seconds"]),
        "frames_per_second": round((last["frames"] - first["frames"]) / (last["seconds"] - first["seconds"])),
        **final_return(curves),
    }
    if learner is not None:
        late = learner.iloc[3:]  # after the first iterations, when nothing can be old yet
        summary["age_in_updates"] = round(float(late["version_diff_avg"].mean()), 1)
        summary["oldest_in_updates"] = round(float(late["version_diff_max"].median()), 1)
    if evaluated is not None:
        summary["validation"] = evaluated
    (target / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def earlier(curves_file: Path, name: str, command: str, note: str) -> None:
    """A run whose curve alone was kept."""
    target = HERE / name
    target.mkdir(exist_ok=True)
    config = {
        "command": command,
        "game": "plunder",
        "seed": 1,
        "commit": COMMIT,
        "machine": "three runs on one NVIDIA H200, five CPU cores each, stopped by the clock",
        "versions": ["PyTorch 2.11", "Triton 3.6", "Python 3.12"],
        "note": note,
    }
    (target / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, width=110))
    (target / "curves.csv").write_text(curves_file.read_text().replace("\r\n", "\n"))
    write_summary(target, pd.read_csv(curves_file), None, None)


EARLIER = {
    "A_base": ("many_games", "", ""),
    "G_256envs": ("few_games", " --num_envs_per_worker 128", ""),
    "B_r256_srwm": ("long_rollout", " --num_envs_per_worker 128 --rollout 256 --batch_size 2048", ""),
    "C_r256_ff": (
        "long_rollout_feedforward",
        " --num_envs_per_worker 128 --rollout 256 --batch_size 2048 --core feedforward",
        "and gamma .999; how it was spelled was not kept",
    ),
    "D_returnnorm": (
        "few_games_return_norm",
        " --num_envs_per_worker 128 --reward_treatment return_norm --balance_games False",
        "and gamma .999; how it was spelled was not kept",
    ),
    "H_epochs3": ("few_games_epochs_3", " --num_envs_per_worker 128 --num_epochs 3", ""),
}


def main() -> None:
    """Collect the runs of a folder, and earlier curves."""
    parser = argparse.ArgumentParser(description="Collect the raw numbers of this study.")
    parser.add_argument("folder", type=Path, nargs="?", help="where launch.py trained")
    parser.add_argument("--earlier", type=Path, help="a folder of curves of the study's first six runs")
    args = parser.parse_args()
    if args.folder is not None:
        machine = (args.folder / "machine.txt").read_text().splitlines()
        share = (
            "one of eight runs side by side on two NVIDIA H200 (four a GPU, four CPU cores each), stopped by the clock"
        )
        for run in sorted(file.parent for file in args.folder.glob("*/curves.csv")):
            collect(run, machine, share)
    if args.earlier is not None:
        for file, (name, flags, note) in EARLIER.items():
            command = f"train_rl.py --preset six_games --games plunder --seed 1 --train_for_env_steps 50000000{flags}"
            earlier(args.earlier / f"{file}.csv", name, command, note)


if __name__ == "__main__":
    main()
