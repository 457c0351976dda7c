"""Copy what training and evaluation left in a folder of experiments into a study: one small folder a run.

    python -m experiments.procgen.learnable.collect FOLDER --commit COMMIT --machine TEXT [--into STUDY] [NAME=NEW ...]

Each run gets ``config.yaml`` (command, seed, commit, machine), ``curves.csv.xz`` (as training wrote it),
``learner.csv.xz`` (some of the learner's summaries), ``summary.json`` and, where an agent was evaluated,
``episodes.csv.xz``. The first runs, whose ``config.yaml`` has all settings too, were collected before training kept
what was asked for apart from what follows from it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.runs import CURVES, write_compressed, write_config

HERE = Path(__file__).resolve().parent
SCALARS = ("version_diff_avg", "version_diff_min", "version_diff_max", "kl_divergence", "entropy", "grad_norm",
           "value_loss", "advantage_loss", "lr")  # fmt: skip
NOT_THE_RUN = ("--experiment", "--train_dir", "--train_for_seconds", "--experiment_summaries_interval")
"""Flags that say where a run was made and how it was watched."""
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


def final_score(curves: pd.DataFrame) -> dict[str, float]:
    """Of a run on several games: the mean normalised score over the last WINDOW frames of training."""
    last = curves[curves["frames"] > curves["frames"].iloc[-1] - WINDOW]
    return {"final_score": round(float(last["normalised_score"].mean()), 3)}


def learner_scalars(run: Path) -> pd.DataFrame:
    """Some of the learner's summaries, of the first minibatch of a training iteration each."""
    events = EventAccumulator(str(run / ".summary" / "0"), size_guidance={"scalars": 0})  # of a resumed run, too
    events.Reload()
    columns = {name: {event.step: event.value for event in events.Scalars(f"train/{name}")} for name in SCALARS}
    return pd.DataFrame(columns).rename_axis("frames").reset_index()


def validation(run: Path, target: Path) -> dict[str, Any] | None:
    """What the evaluation found, if there was one; its episodes go to ``episodes.csv.xz``."""
    reports = run / "evaluation"
    if not (reports / "eval_sampled.csv").is_file():
        return None
    episodes = (reports / "eval_sampled_episodes.csv").read_text()
    write_compressed(target / "episodes.csv.xz", episodes)
    row = pd.read_csv(reports / "eval_sampled.csv").iloc[0]
    names = ("episodes", "return", "return_low", "return_high", "normalised_score")
    numbers = {name: round(float(row[name]), 3) for name in names}
    return {"levels": "500-699", "policy": "sampled", "device": "cpu", **numbers}


def command(line: str) -> str:
    """The training command without :data:`NOT_THE_RUN`."""
    words, kept = shlex.split(line), list[str]()
    while words:
        flag = words.pop(0)
        values = [words.pop(0) for _ in range(next((i for i, w in enumerate(words) if w.startswith("--")), len(words)))]
        if flag.split("=")[0] not in NOT_THE_RUN:
            kept += [flag, *values]
    return shlex.join(["train_rl.py", *kept])


def collect(run: Path, target: Path, commit: str, machine: str) -> None:
    """One run's folder."""
    target.mkdir(exist_ok=True)
    asked = json.loads((run / "config.json").read_text())
    config = {
        "command": command(asked["command_line"]),
        "game": asked["request"]["games"],
        "seed": asked["request"]["seed"],
        "commit": commit,
        "machine": machine,
    }
    write_config(target, config)
    write_compressed(target / CURVES, (run / "curves.csv").read_text())
    learner = learner_scalars(run)
    write_compressed(target / "learner.csv.xz", learner.to_csv(index=False, float_format="%.5g"))
    write_summary(target, pd.read_csv(run / "curves.csv"), learner, validation(run, target))


def write_summary(target: Path, curves: pd.DataFrame, learner: pd.DataFrame, evaluated: dict[str, Any] | None) -> None:
    """``summary.json``."""
    first, last = curves.iloc[0], curves.iloc[-1]
    summary: dict[str, Any] = {
        "frames": int(last["frames"]),
        "seconds": float(last["seconds"]),
        "frames_per_second": round((last["frames"] - first["frames"]) / (last["seconds"] - first["seconds"])),
        **(final_return(curves) if curves["game"].nunique() == 1 else final_score(curves)),
    }
    late = learner.iloc[3:]  # after the first iterations, when nothing can be old yet
    summary["age_in_updates"] = round(float(late["version_diff_avg"].mean()), 1)
    summary["oldest_in_updates"] = round(float(late["version_diff_max"].median()), 1)
    if evaluated is not None:
        summary["validation"] = evaluated
    (target / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def main() -> None:
    """Collect the runs of a folder."""
    parser = argparse.ArgumentParser(description="Collect the raw numbers of this study.")
    parser.add_argument("folder", type=Path, help="where runs were trained")
    parser.add_argument("--commit", required=True, help="of the code that trained them")
    parser.add_argument("--machine", required=True, help="what each run had of it, and the versions")
    parser.add_argument("--into", type=Path, default=HERE, help="the study's folder (default: this one)")
    parser.add_argument("names", nargs="*", help="runs to collect, as NAME or NAME=NEW_NAME; default: all")
    args = parser.parse_intermixed_args()
    names = dict(name.split("=") if "=" in name else (name, name) for name in args.names)
    runs = {file.parent.name: file.parent for file in sorted(args.folder.glob("*/curves.csv"))}
    for name, new_name in (names or {name: name for name in runs}).items():
        collect(runs[name], args.into / new_name, args.commit, args.machine)


if __name__ == "__main__":
    main()
