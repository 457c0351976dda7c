"""Trains the agents of this folder's README.md, as many at a time as there are GPUs, and evaluates them.

    python -m experiments.procgen.train --frames 20e6 decay_95 lstm
    python -m experiments.procgen.train --frames 20e6 --seconds 560 --per_gpu 2 unbalanced_batch unbalanced_lstm
    python -m experiments.procgen.train --frames 300e6 --evaluate 200 --seed 2 six_games
    python -m experiments.procgen.train --frames 20e6 --set gamma=.995 --name gamma_995 no_softmax
    python -m experiments.procgen.train --collect

A run is ``train_rl.py`` with the preset and the settings of a recipe (``recipes/NAME.yaml``), from the checkpoint if
there is one, and with ``--evaluate`` then ``eval_rl.py`` on training levels and on the validation range (levels
500-699; with --test on the unseen splits too). It is named like its recipe, and a seed other than 1 is added; ``--set``
(which may be repeated) changes a setting of the one recipe that is named, and ``--name`` is the run's name then. Each
place on a GPU takes the next run when it has finished one and gets its share of the machine's cores. After
``--seconds`` none is begun, and those under way are stopped, saved. ``--collect`` copies settings, curves and scores
into ``runs/NAME/``, and the agents that are shipped into ``agents/procgen/``, in half precision.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments import places
from experiments.gpus import visible_gpus
from experiments.procgen.data import RECIPES, RUNS
from experiments.recipes import Resolved, read_yaml, recipe_names, resolve
from experiments.runs import CURVES, add_evaluations, write_compressed, write_config
from srwm_agents import load_agent, save_agent
from srwm_agents.recipes import yaml_text

ROOT = Path(__file__).parents[2]
AGENTS = ROOT / "agents" / "procgen"
DRAFT = "run.yaml"
"""What a run is, in its experiment's folder, for ``--collect``."""
NO_BOUND = 10**10
"""Seconds; Sample Factory's own default."""

SHIPPED = {"srwm": ("six_games_seed2", "agent_average"), "lstm": ("lstm", "agent")}
"""Agents in the repository, the runs that they come from, and which agent of the run it is.

The SRWM's run ended before training kept an average; its mean was made by ``average_agents.py``.
"""


@dataclass(frozen=True)
class Job:
    """A run that is to be trained."""

    name: str
    recipe: str
    settings: dict[str, Any]
    """What it changes of the recipe."""
    resolved: Resolved
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.yaml`` begins with."""
        return {"recipe": self.recipe, "settings": self.settings, "seed": self.seed}


def jobs(args: argparse.Namespace) -> list[Job]:
    """The runs that the command line names.

    Raises:
        ValueError: a recipe is not there, or ``--set`` cannot be understood.
    """
    if not args.runs:
        raise ValueError("name the recipes")
    settings = {}
    for given in args.set:
        setting, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--set is {given!r}, expected SETTING=VALUE")
        settings[setting] = yaml.safe_load(value)
    if (settings or args.name) and not (settings and args.name and len(args.runs) == 1):
        raise ValueError("--set and --name go together, with one recipe")
    if args.name and not re.fullmatch(r"\w{1,24}", args.name):
        raise ValueError(f"--name is {args.name!r}, expected up to 24 letters, digits and underscores")
    found = []
    for recipe in args.runs:
        base = resolve(recipe, RECIPES)
        resolved = Resolved(base.preset, base.settings | settings)
        name = (args.name or recipe) + ("" if args.seed == 1 else f"_seed{args.seed}")
        found.append(Job(name, recipe, settings, resolved, args.seed))
    return found


def train(job: Job, gpu: str, cores: set[int], args: argparse.Namespace, until: float) -> None:
    """Train and evaluate one run; what it prints goes to a log beside it."""
    folder = args.train_dir / job.name
    folder.mkdir(parents=True, exist_ok=True)
    where = [f"--train_dir={args.train_dir}", f"--experiment={job.name}"]
    flags = {"seed": job.seed, "train_for_env_steps": int(args.frames), **job.resolved.settings}
    given = [f"--preset={job.resolved.preset}", *(f"--{key}={value}" for key, value in flags.items())]
    # Said in any case: a run that goes on would else keep the bound that it was begun with.
    given.append(f"--train_for_seconds={args.run_seconds or NO_BOUND}")
    commands = [[sys.executable, "train_rl.py", *where, *given]]
    write_draft(folder, job, args, given)
    if args.evaluate:
        splits = "train,validation,test" if args.test else "train,validation"
        evaluation = [f"--episodes={args.evaluate}", f"--splits={splits}", "--device=cuda", "--max_envs=100"]
        commands.append([sys.executable, "eval_rl.py", *where, *evaluation])
    with (folder / "log.txt").open("a") as log:
        for command in commands:
            began = time.monotonic()
            status = places.run(command, places.Place(gpu, frozenset(cores)), log, until)
            spent = time.monotonic() - began
            print(f"{job.name} on GPU {gpu}: {command[1]}, status {status}, {spent:.0f} s", flush=True)
            if status:
                return


def write_draft(folder: Path, job: Job, args: argparse.Namespace, given: list[str]) -> None:
    """Write what ``config.yaml`` will hold, as far as it is known when training begins."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    draft = job.config | {
        "train_for_env_steps": int(args.frames),
        "commit": commit.stdout.strip() or None,
        "command": " ".join(["train_rl.py", *given]),
    }
    (folder / DRAFT).write_text(yaml_text(draft))


def collect(train_dir: Path, stage: str) -> None:
    """Copy settings, curves and scores of all runs that there are; earlier stages of a run stay as they are."""
    for draft in sorted(train_dir.glob(f"*/{DRAFT}")):
        source, target = draft.parent, RUNS / draft.parent.name
        if not (source / "curves.csv").is_file():
            continue
        target.mkdir(parents=True, exist_ok=True)
        write_compressed(target / CURVES, (source / "curves.csv").read_text())
        frames = int(pd.read_csv(source / "curves.csv")["frames"].iloc[-1])
        before = read_yaml(target / "config.yaml") if (target / "config.yaml").is_file() else {}
        stages = before.get("evaluations", {})
        if policies := add_evaluations(target, stage, source / "evaluation"):
            stages = stages | {stage: {"million_frames": round(frames / 1e6)}}
        write_config(target, before | read_yaml(draft) | {"frames": frames, "evaluations": stages})
        print(f"collected {source.name}: curves, {', '.join(policies) or 'no evaluation'}")
    for name, (run, agent) in SHIPPED.items():
        if (train_dir / run / agent).is_dir():
            save_agent(load_agent(train_dir / run / agent), AGENTS / name, half=True)
            print(f"shipped {name}")


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RECIPE", help=f"of {', '.join(recipe_names(RECIPES))}")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="change the recipe")
    parser.add_argument("--name", default="", help="of a run with --set")
    parser.add_argument("--frames", type=float, default=20e6, help="of each run (default: %(default).0f)")
    parser.add_argument("--seconds", type=float, default=1e9, help="of all runs together (default: no bound)")
    parser.add_argument("--run_seconds", type=int, default=None, help="of each run, at most (default: no bound)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--evaluate", type=int, default=0, metavar="EPISODES", help="of each game and split; 0: none")
    parser.add_argument("--test", action="store_true", help="evaluate on the unseen splits too, once settings stand")
    parser.add_argument("--gpus", type=int, default=None, help="default: all there are")
    parser.add_argument("--per_gpu", type=int, default=1, help="runs at a time on each GPU (default: %(default)s)")
    parser.add_argument("--train_dir", type=Path, default=Path("train_dir"), help="default: train_dir")
    parser.add_argument("--collect", action="store_true", help="only copy the results")
    parser.add_argument("--stage", default="last", help="of --collect: a name for these evaluations (default: last)")
    args = parser.parse_args(arguments)
    args.train_dir = args.train_dir.absolute()
    if args.collect:
        collect(args.train_dir, args.stage)
        return 0
    if args.per_gpu < 1:
        parser.error(f"--per_gpu is {args.per_gpu}, expected at least 1")
    try:
        named = jobs(args)
    except ValueError as error:
        parser.error(str(error))
    gpus = visible_gpus()[: args.gpus]
    if not gpus:
        parser.error("there is no GPU here")
    until = time.monotonic() + args.seconds

    def start(job: Job, place: places.Place) -> None:
        assert place.gpu is not None
        train(job, place.gpu, set(place.cores), args, until)

    places.work_through(named, places.places(gpus, args.per_gpu), start, until)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
