"""Trains the agents of procgen.md, as many at a time as there are GPUs, and evaluates them.

    python docs/results/train_procgen.py --frames 20e6 base decay_95 lstm
    python docs/results/train_procgen.py --frames 20e6 --seconds 560 --per_gpu 2 unbalanced+batch_1536 unbalanced+lstm
    python docs/results/train_procgen.py --frames 300e6 --evaluate 200 unbalanced+linear
    python docs/results/train_procgen.py --collect

A run is ``train_rl.py --preset fast`` with ``BASE`` and the flags that its name stands for, from the checkpoint if
there is one, and with ``--evaluate`` then ``eval_rl.py`` on training levels and on the validation range (levels
500-699; with --test on the unseen splits too). A name is one of the changes below or several, joined by "+"; a seed
other than 1 is added to it. Each place on a GPU takes the next run when it has finished one and gets its share of the
machine's cores. After ``--seconds`` none is begun, and those under way are stopped, saved. ``--collect`` copies curves,
settings and scores into ``procgen/RUN/``, and the agents that are shipped into ``agents/procgen/``, in half precision.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from train_fewshot import visible_gpus

from envs import MEMORY_GAMES
from srwm_agents import load_agent, save_agent

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT_FILES = ("curves.csv", "config.json", "evaluation/eval_*.csv")
AGENTS = ROOT / "agents" / "procgen"

Flags = dict[str, object]

CHANGES: dict[str, Flags] = {
    "base": {},
    # Updates for each frame.
    "batch_1536": {"batch_size": 1536, "num_batches_per_epoch": 8},
    "batch_6144": {"batch_size": 6144, "num_batches_per_epoch": 2},
    "epochs_2": {"num_epochs": 2},
    "epochs_3": {"num_epochs": 3},
    # How old trajectories are.
    "envs_768": {"num_envs_per_worker": 384},
    "rollout_16": {"rollout": 16},
    "rollout_64": {"rollout": 64},
    # What is optimised, and how.
    "policy_vtrace": {"policy_loss": "vtrace"},
    "gamma_995": {"gamma": 0.995},
    "gamma_997": {"gamma": 0.997},
    "gamma_999": {"gamma": 0.999},
    "far": {"game_gammas": "maze=.999,leaper=.999,plunder=.997"},
    "random_starts": {"random_starts": "maze=100"},
    "lambda_95": {"vtrace_c": 0.95},
    "gamma_999_lambda_95": {"gamma": 0.999, "vtrace_c": 0.95},
    "unbalanced": {"balance_games": False},
    "return_norm": {"reward_treatment": "return_norm"},
    "popart": {"popart": True, "balance_games": False},
    "unclipped": {"reward_treatment": "none"},
    "shift": {"augment_shift": 4},
    "shift_consistent": {"augment_shift": 4, "augment_consistency": 0.1},
    "lr_25e-5": {"learning_rate": 2.5e-4},
    "lr_1e-3": {"learning_rate": 1e-3},
    "linear": {"lr_schedule": "linear_decay"},
    "rmsprop": {"optimizer": "rmsprop", "learning_rate": 6e-4},
    "entropy_003": {"exploration_loss_coeff": 0.003},
    "entropy_02": {"exploration_loss_coeff": 0.02},
    "value_25": {"value_loss_coeff": 0.25},
    "critic": {"critic": "separate"},
    "critic_plain": {"critic": "separate", "advantage_loss_coeff": 0.0},
    "critic_value": {"critic": "separate", "actor_value_loss_coeff": 0.1},  # at 03561b2; there is no such flag any more
    "critic_detached": {"critic": "detached"},
    "critic_detached_plain": {"critic": "detached", "advantage_loss_coeff": 0.0},
    # The memory.
    "decay_90": {"state_decay": 0.9},
    "decay_95": {"state_decay": 0.95},
    "decay_99": {"state_decay": 0.99},
    "no_softmax": {"input_softmax": False, "input_norm": True},
    "no_softmax_decay_90": {"input_softmax": False, "input_norm": True, "state_decay": 0.9},
    "unit_keys": {"unit_keys": True},
    "query_3": {"query_scale": 3.0},
    "beta_-1": {"beta_mean": -1.0},
    "detached": {"detach_state_every_step": True},
    "last_action": {"last_action": True},
    "one_layer": {"num_layers": 1},
    "wide": {"hidden_size": 256, "num_heads": 16, "ff_size": 1024},
    # What sees.
    "impoola": {"encoder_conv_architecture": "resnet_impoola"},
    "wide_encoder": {"encoder_conv_architecture": "resnet_impala_wide"},
    "lstm": {"core": "lstm"},
    "feedforward": {"core": "feedforward"},
    "delta": {"core": "delta"},
    "fake_sr": {"core": "fake_sr"},
    "sr_delta": {"core": "sr_delta"},
    "no_carry": {"core": "srwm_no_carry"},
    # The games.
    "maze_only": {"games": "maze"},
    "leaper_only": {"games": "leaper"},
    "plunder_only": {"games": "plunder"},
    "memory": {"games": ",".join(MEMORY_GAMES), "distribution_mode": "memory", "num_levels": 500},
}
"""Against the fast preset with ``BASE``."""

BASE: Flags = {
    "batch_size": 3072,
    "num_batches_per_epoch": 4,
    "vtrace_c": 1.0,
    "gamma": 0.99,
    "input_softmax": True,
    "input_norm": False,
    "state_decay": 1.0,
    "lr_schedule": "constant",
    "unit_keys": False,
}
"""What the fast preset was when the comparison began, so that runs stay comparable when it changes.

Its ``state_limit``, which came later, is left as it is: it changes nothing but a run that would explode.
"""

NO_BOUND = 10**10
"""Seconds; Sample Factory's own default."""

SHIPPED = {
    "srwm": (
        "batch_1536+lambda_95+linear+decay_95+no_softmax+unit_keys+critic+far+random_starts_seed2",
        "agent_average",
    ),
    "lstm": ("batch_1536+lambda_95+linear+decay_95+lstm", "agent"),
}
"""Agents in the repository, the runs that they come from, and which agent of the run it is.

The SRWM's run ended before training kept an average; its mean was made by ``average_agents.py``.
"""


def flags_of(name: str) -> Flags:
    """What a run's name stands for; KeyError for an unknown change."""
    return {flag: value for change in name.split("+") for flag, value in CHANGES[change].items()}


def folder_of(name: str, seed: int) -> str:
    """Where a run lies, in ``train_dir`` and in ``procgen/``."""
    return name if seed == 1 else f"{name}_seed{seed}"


def train(name: str, gpu: str, cores: set[int], args: argparse.Namespace, until: float) -> None:
    """Train and evaluate one run; what it prints goes to a log beside it."""
    experiment = folder_of(name, args.seed)
    folder = args.train_dir / experiment
    folder.mkdir(parents=True, exist_ok=True)
    where = [f"--train_dir={args.train_dir}", f"--experiment={experiment}"]
    flags = {"seed": args.seed, "train_for_env_steps": int(args.frames), **BASE, **flags_of(name)}
    commands = [
        [sys.executable, "train_rl.py", "--preset=fast", *where, *(f"--{key}={value}" for key, value in flags.items())]
    ]
    # Said in any case: a run that goes on would else keep the bound that it was begun with.
    commands[0].append(f"--train_for_seconds={args.run_seconds or NO_BOUND}")
    if args.evaluate:
        splits = "train,validation,test" if args.test else "train,validation"
        evaluation = [f"--episodes={args.evaluate}", f"--splits={splits}", "--device=cuda", "--max_envs=100"]
        commands.append([sys.executable, "eval_rl.py", *where, *evaluation])
    # The cores are set before the command counts them.
    pinned = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores)))]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": gpu}
    with (folder / "log.txt").open("a") as log:
        for command in commands:
            began = time.monotonic()
            process = subprocess.Popen(
                [*pinned, *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                status = process.wait(timeout=max(1.0, until - began))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # saves and stops
                status = process.wait()
            spent = time.monotonic() - began
            print(f"{experiment} on GPU {gpu}: {command[1]}, status {status}, {spent:.0f} s", flush=True)
            if status:
                return


def work(place: int, gpus: list[str], names: queue.SimpleQueue[str], args: argparse.Namespace, until: float) -> None:
    """One place's runs, one after another."""
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // (len(gpus) * args.per_gpu)
    while time.monotonic() < until - 30:  # what is begun later has hardly started when it must stop
        try:
            name = names.get_nowait()
        except queue.Empty:
            return
        train(name, gpus[place % len(gpus)], set(cores[place * share : (place + 1) * share]), args, until)


def collect(train_dir: Path) -> None:
    """Copy curves, settings and scores of all runs that there are."""
    for source in sorted(folder for folder in train_dir.iterdir() if folder.is_dir()):
        files = [file for pattern in KEPT_FILES for file in sorted(source.glob(pattern))]
        if not files:
            continue
        target = HERE / "procgen" / source.name
        target.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, target)
        print(f"collected {source.name}: {', '.join(file.name for file in files)}")
    for name, (run, agent) in SHIPPED.items():
        if (train_dir / run / agent).is_dir():
            save_agent(load_agent(train_dir / run / agent), AGENTS / name, half=True)
            print(f"shipped {name}")


def main(arguments: list[str] | None = None) -> int:
    """Train, evaluate, or collect; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"changes, joined by +: {', '.join(CHANGES)}")
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
    args = parser.parse_args(arguments)
    args.train_dir = args.train_dir.absolute()
    if args.collect:
        collect(args.train_dir)
        return 0
    if wrong := [change for name in args.runs for change in name.split("+") if change not in CHANGES]:
        parser.error(f"unknown change {wrong[0]!r}, allowed: {', '.join(CHANGES)}")
    if not args.runs:
        parser.error("name the runs")
    if args.per_gpu < 1:
        parser.error(f"--per_gpu is {args.per_gpu}, expected at least 1")
    gpus = visible_gpus()[: args.gpus]
    if not gpus:
        parser.error("there is no GPU here")
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in args.runs:
        waiting.put(name)
    until = time.monotonic() + args.seconds
    places = range(len(gpus) * args.per_gpu)
    threads = [threading.Thread(target=work, args=(place, gpus, waiting, args, until)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
