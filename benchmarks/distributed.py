"""Frames a second by the number of collectors on this machine, and the bytes that a frame costs between machines.

First a check on a rollout: the learner must compute the policy that the collector acted with. Then, for each number of
collectors, frames are counted for some seconds after all of them have joined: once discarded (the collectors' rate) and
once learnt from (training's rate). Bytes are those of the objects that Ray stores and sends.

The committed table was made with:

    python benchmarks/distributed.py --json experiments/performance/distributed.json
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.distributed.arguments import parse_distributed_args
from srwm_agents.distributed.learner import DistributedLearner, RolloutQueue
from srwm_agents.distributed.pool import CollectorPool
from srwm_agents.distributed.rollouts import Arrays, CollectedRollout, as_tensors, concatenate
from srwm_agents.distributed.training import collector_settings
from srwm_agents.integrations.sample_factory.processes import quiet_console_log
from srwm_agents.integrations.sample_factory.standalone import begin_experiment, make_learner, trajectories
from srwm_agents.processes import Processes

FLAGS = [
    *("--preset=demo", "--seed=0", "--num_envs_per_worker=16", "--rollout=32", "--batch_size=512"),
    *("--num_batches_per_epoch=1", "--num_epochs=1"),
]


def check(learner: DistributedLearner, rollout: CollectedRollout) -> float:
    """Largest |pi / mu - 1|, pi the learner's and mu the collector's policy, with the same weights."""
    batch = trajectories(as_tensors(concatenate([rollout.arrays])), learner.device)
    with torch.no_grad():
        error = float((learner.update.losses(learner._prepare_batch(batch)[0]).ratios - 1).abs().max())
    if not error < 1e-3:
        raise SystemExit(f"the learner's policy differs from the collector's: a ratio is off by {error:.1e}")
    return error


def measure(learner: DistributedLearner, number: int, seconds: float, learn: bool) -> dict[str, Any]:
    """Frames a second with ``number`` collectors, the share of time that the learner works, and the check's error."""
    cfg = learner.cfg
    pool = CollectorPool(collector_settings(learner), number, cpus=cfg.worker_cpus, log=lambda line: None)
    pool.publish(learner.weights(), learner.train_step)
    queue = RolloutQueue(cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch, cfg.max_policy_lag)
    error = None
    while len(pool.places) < number:
        rollout = pool.next_rollout(1.0)
        if rollout is not None and error is None:
            error = check(learner, rollout)
    frames, busy, began = 0, 0.0, time.monotonic()
    while time.monotonic() - began < seconds:
        rollout = pool.next_rollout(1.0)
        if rollout is None:
            continue
        if not learn:
            frames += rollout.arrays["rewards"].size
            continue
        queue.put(rollout)
        while (batch := queue.take(learner.train_step)) is not None:
            start = time.monotonic()
            learner.train(trajectories(as_tensors(batch), learner.device))
            pool.publish(learner.weights(), learner.train_step)
            busy += time.monotonic() - start
            frames += batch["rewards"].size
    wall = time.monotonic() - began
    pool.close()
    return {"frames_per_second": frames / wall, "learner_busy": busy / wall, "ratio_error": error}


def bytes_of(arrays: Arrays) -> int:
    """Bytes of all arrays in a rollout."""
    return sum(bytes_of(entry) if isinstance(entry, dict) else entry.nbytes for entry in arrays.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collectors", default="1,2,4", help="numbers of collectors, comma-separated (default: 1,2,4)")
    parser.add_argument("--seconds", type=float, default=30, help="to count frames for (default: 30)")
    parser.add_argument("--json", default="", help="file to write the numbers to")
    args, flags = parser.parse_known_args()
    quiet_console_log()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        everywhere = [f"--train_dir={folder}", "--experiment=benchmark", "--device=cpu"]
        cfg = parse_distributed_args([*FLAGS, *everywhere, *flags])
        begin_experiment(cfg)
        learner = make_learner(cfg, functools.partial(DistributedLearner, Processes("cpu")))
        numbers = [int(number) for number in args.collectors.split(",")]
        ray.init(
            address="local",
            num_cpus=max(numbers),
            object_store_memory=500 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        for number in numbers:
            collected = measure(learner, number, args.seconds, learn=False)
            learnt = measure(learner, number, args.seconds, learn=True)
            rows.append({"collectors": number, "collected": collected, "learnt": learnt})
        pool = CollectorPool(collector_settings(learner), 1, cpus=cfg.worker_cpus, log=lambda line: None)
        pool.publish(learner.weights(), learner.train_step)
        while (rollout := pool.next_rollout(1.0)) is None:
            pass
        sizes = {
            "bytes_per_frame": bytes_of(rollout.arrays) / rollout.arrays["rewards"].size,
            "weights_bytes": bytes_of(learner.weights()),
            "state_bytes": rollout.arrays["rnn_states"].nbytes // len(rollout.arrays["rnn_states"]),
        }
        pool.close()
        ray.shutdown()
    console = Console(highlight=False)
    console.print("collectors  collected  learnt from  learner busy")
    for row in rows:
        console.print(
            f"{row['collectors']:>10} {row['collected']['frames_per_second']:>10,.0f} "
            f"{row['learnt']['frames_per_second']:>12,.0f} {row['learnt']['learner_busy']:>13.0%}"
        )
    console.print(f"{sizes['bytes_per_frame']:,.0f} bytes a frame, weights {sizes['weights_bytes']:,} bytes")
    if args.json:
        machine = {"cpu_cores": os.cpu_count(), "torch": torch.__version__, "ray": ray.__version__}
        document = {"command": [*FLAGS, *flags], "machine": {**machine, "python": platform.python_version()}}
        Path(args.json).write_text(json.dumps({**document, **sizes, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
