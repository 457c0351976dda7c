"""Time of one learner update by CUDA kernel.

The learner trains on a synthetic batch repeatedly, with nothing else on the device. Flags are those of ``train_rl.py``;
the preset is ``fast`` unless another is named:

    python benchmarks/update.py --preset six_games
    python benchmarks/update.py --preset popgym --core gru
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from srwm_agents.integrations.sample_factory import register
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import experiment_folder, finish_config
from srwm_agents.integrations.sample_factory.environment import GAME_ENTRY, make_environment

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.utils.env_info import EnvInfo  # isort: skip
from sample_factory.algo.utils.model_sharing import ParameterServer  # isort: skip
from sample_factory.algo.utils.shared_buffers import alloc_trajectory_tensors  # isort: skip
from sample_factory.model.model_utils import get_rnn_size  # isort: skip

from srwm_agents.integrations.sample_factory.learner import SRWMLearner


def make_learner(flags: list[str], folder: str) -> SRWMLearner:
    """Make an initialised learner without processes or a runner."""
    register()
    preset = [] if any(flag.startswith("--preset") for flag in flags) else ["--preset=fast"]
    cfg = finish_config(parse_train_args([*preset, f"--train_dir={folder}", "--experiment=e", "--seed=1", *flags]))
    experiment_folder(cfg).mkdir(parents=True, exist_ok=True)
    (experiment_folder(cfg) / "config.json").write_text(json.dumps(cfg))
    environment = make_environment(cfg.env, cfg)
    observations, actions = environment.observation_space, environment.action_space
    environment.close()
    info = EnvInfo(observations, actions, cfg.vector_size, False, True, [], True, 1)
    versions = torch.zeros(1, dtype=torch.int32)
    learner = SRWMLearner(cfg, info, versions, 0, ParameterServer(0, versions, True))
    learner.init()
    return learner


def make_batch(learner: SRWMLearner) -> Any:
    """Make trajectories of the right shapes on the learner's device; their values do not affect the time."""
    cfg = learner.cfg
    number = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
    batch: Any = alloc_trajectory_tensors(
        learner.env_info, number, cfg.rollout, get_rnn_size(cfg), learner.device, False
    )
    for entry in batch["obs"].values():
        if entry.dtype == torch.uint8:
            entry.random_(0, 256)
        else:
            entry.zero_()
    spaces: Any = learner.env_info.obs_space
    games = int(spaces[GAME_ENTRY].high[0]) + 1
    batch["obs"][GAME_ENTRY][:] = (torch.arange(number, device=learner.device) % games)[:, None, None]
    batch["rewards"].normal_()
    batch["dones"][:] = torch.rand(batch["dones"].shape, device=learner.device) < 0.01
    for name, value in (("policy_id", 0), ("policy_version", 0), ("rnn_states", 0.0), ("actions", 0.0),
                        ("action_logits", 0.0), ("values", 0.0), ("log_prob_actions", -2.7)):  # fmt: skip
        batch[name].fill_(value)
    return batch


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--kernels", type=int, default=25, help="rows of the table (default: %(default)s)")
    args, flags = parser.parse_known_args(arguments)
    if not torch.cuda.is_available():
        print("benchmarks/update.py: no CUDA device: nothing to measure", file=sys.stderr)
        return 1
    torch.backends.cudnn.benchmark = True  # as training sets it
    with tempfile.TemporaryDirectory() as folder, torch.cuda.stream(torch.cuda.Stream()):
        learner = make_learner(flags, folder)
        batch, updates = make_batch(learner), learner.cfg.num_batches_per_epoch * learner.cfg.num_epochs
        for _ in range(3):
            learner.train(batch)
        times = []
        for _ in range(7):
            torch.cuda.synchronize()
            began = time.perf_counter()
            learner.train(batch)
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - began) / updates)
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            learner.train(batch)
            torch.cuda.synchronize()
        frames = learner.cfg.batch_size
    rows = sorted(profiler.key_averages(), key=lambda row: -row.self_device_time_total)
    total = sum(row.self_device_time_total for row in rows)
    kernels = [
        {"ms": row.self_device_time_total / 1e3 / updates, "calls": row.count / updates, "kernel": row.key}
        for row in rows[: args.kernels]
    ]
    median = sorted(times)[len(times) // 2]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; an update of {frames} frames: {median:.2f} ms "
          f"({min(times):.2f}-{max(times):.2f}), {1e3 * median / frames:.2f} µs a frame")  # fmt: skip
    for kernel in kernels:
        share = 100e3 * kernel["ms"] * updates / total
        print(f"{kernel['ms']:8.3f} ms {share:5.1f} % {kernel['calls']:6.1f} calls  {kernel['kernel'][:90]}")
    if args.json:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "machine": {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__},
            "frames": frames,
            "ms": {"median": median, "min": min(times), "max": max(times)},
            "device_ms": total / 1e3 / updates,
            "kernels": kernels,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
