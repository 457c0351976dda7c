"""Train the runs of this study side by side on two GPUs, stop them at one time, and evaluate their last agents.

    python experiments/procgen/learnable/launch.py train FOLDER --seconds 900
    python experiments/procgen/learnable/launch.py evaluate FOLDER

``FOLDER/deadline``, in seconds since the epoch, may be written while training goes on and replaces ``--seconds``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
BASE = ["--preset=six_games", "--train_for_env_steps=50000000"]
FEW = ["--num_workers=2", "--worker_num_splits=1", "--num_envs_per_worker=128"]
"""256 games in two vectors of 128, which take the host half the turns of four vectors of 64."""
STOP_WITHIN_SECONDS = 40


@dataclass(frozen=True)
class Run:
    """One training run: its folder's name, its flags beside BASE, and its limit in seconds, if it has one."""

    name: str
    flags: list[str]
    seconds: int | None = None


@dataclass
class Slot:
    """A share of the machine, and the runs that it makes one after the other."""

    gpu: int
    runs: list[Run]
    cores: str = ""
    process: subprocess.Popen[bytes] | None = None
    running: str = ""


def slots(first_of_two: int) -> list[Slot]:
    """The study; ``first_of_two``: seconds of the first of two runs that share a slot."""
    plunder = ["--games=plunder", *FEW]
    return [
        Slot(0, [Run("few_games_seed2", [*plunder, "--seed=2"])]),
        Slot(0, [Run("few_games_old_16", [*plunder, "--seed=1", "--hold_back=2"])]),
        Slot(0, [Run("few_games_lambda", [*plunder, "--seed=1", "--vtrace_c=1", "--vtrace_lambda=.95"])]),
        Slot(0, [Run("long_rollout_seed2", ["--games=plunder", "--num_envs_per_worker=128", "--rollout=256",
                                            "--batch_size=2048", "--seed=2"])]),
        Slot(1, [Run("few_games_old_32", [*plunder, "--seed=1", "--hold_back=4"])]),
        Slot(1, [Run("leaper_few_games", ["--games=leaper", *FEW, "--seed=1"])]),
        Slot(1, [Run("maze_few_games", ["--games=maze", *FEW, "--seed=1"])]),
        Slot(1, [Run("leaper_many_games", ["--games=leaper", "--seed=1"], first_of_two),
                 Run("maze_many_games", ["--games=maze", "--seed=1"])]),
    ]  # fmt: skip


def train(folder: Path, work: list[Slot], seconds: float, cores: int, extra: list[str]) -> None:
    """Start every slot's first run; whoever ends is followed by the slot's next; at the deadline all are stopped."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + seconds
    each = max(1, cores // len(work))
    for number, slot in enumerate(work):
        slot.cores = f"{number * each % cores}-{number * each % cores + each - 1}"
        start(slot, folder, extra)
    while time.time() < deadline and any(slot.process is not None for slot in work):
        time.sleep(0.5)
        if (folder / "deadline").is_file():
            deadline = float((folder / "deadline").read_text())
        for slot in work:
            if slot.process is not None and slot.process.poll() is not None:
                print(f"{time.time():.0f} {slot.running} ended with {slot.process.returncode}", flush=True)
                slot.process = None
                if slot.runs:
                    start(slot, folder, extra)
    processes = [slot.process for slot in work if slot.process is not None]
    for process in processes:
        process.send_signal(signal.SIGINT)  # it saves
    wait(processes, STOP_WITHIN_SECONDS)
    print(f"{time.time():.0f} stopped: {[process.returncode for process in processes]}", flush=True)
    (folder / "finished").touch()


def start(slot: Slot, folder: Path, extra: list[str]) -> None:
    """Begin the slot's next run."""
    run = slot.runs.pop(0)
    limit = [] if run.seconds is None else [f"--train_for_seconds={run.seconds}"]
    command = ["taskset", "-c", slot.cores, sys.executable, "train_rl.py", *BASE, *run.flags, *limit, *extra,
               f"--experiment={run.name}", f"--train_dir={folder}"]  # fmt: skip
    slot.process = spawn(command, folder / f"{run.name}.log", CUDA_VISIBLE_DEVICES=str(slot.gpu))
    slot.running = run.name
    print(f"{time.time():.0f} {run.name} on GPU {slot.gpu}, cores {slot.cores}", flush=True)


def spawn(command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A process in the checkout's root whose output goes to a file."""
    with log.open("wb") as handle:
        return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                                stdout=handle, stderr=subprocess.STDOUT)  # fmt: skip


def wait(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Until all have ended; those that have not after so many seconds are killed."""
    until = time.time() + seconds
    for process in processes:
        try:
            process.wait(max(0.1, until - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            print("a process was too slow and was killed", flush=True)


def evaluate(folder: Path, seconds: float, episodes: int, device: str) -> None:
    """Play validation levels with each last agent, all of them at the same time."""
    processes = []
    for number, agent in enumerate(sorted(folder.glob("*/agent"))):
        command = [sys.executable, "eval_rl.py", f"--agent={agent}", "--splits=validation", f"--episodes={episodes}",
                   "--policy=sampled", f"--device={device}", f"--output={agent.parent / 'evaluation'}"]  # fmt: skip
        log = folder / f"{agent.parent.name}.evaluation.log"
        processes.append(spawn(command, log, CUDA_VISIBLE_DEVICES=str(number % 2), OMP_NUM_THREADS="2"))
    wait(processes, seconds)


def main() -> None:
    """Parse and do."""
    parser = argparse.ArgumentParser(description="Train or evaluate the runs of this study.")
    parser.add_argument("what", choices=["train", "evaluate", "list"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=900, help="until all are stopped, or evaluations given up")
    parser.add_argument("--first_of_two", type=int, default=430, help="seconds of the first of two runs in a slot")
    parser.add_argument("--only", help="slots whose first run is one of these, comma-separated")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--device", default="cuda", help="of the evaluation")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    args, extra = parser.parse_known_args()
    folder = args.folder.resolve()
    work = slots(args.first_of_two)
    if args.only:
        work = [slot for slot in work if slot.runs[0].name in args.only.split(",")]
    if args.what == "train":
        train(folder, work, args.seconds, args.cores, extra)
    elif args.what == "evaluate":
        evaluate(folder, args.seconds, args.episodes, args.device)
    else:
        for run in (run for slot in work for run in slot.runs):
            print(run.name, *BASE, *run.flags)


if __name__ == "__main__":
    main()
