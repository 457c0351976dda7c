"""One of two learner processes: one update on its half of the rollouts, for ``test_distributed.py``."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import torch

from srwm_agents.distributed.arguments import parse_distributed_args
from srwm_agents.distributed.learner import DistributedLearner
from srwm_agents.distributed.training import split_batch
from srwm_agents.integrations.sample_factory.standalone import make_learner, trajectories
from srwm_agents.processes import Processes

SMALL = [
    *("--device=cpu", "--games=starpilot,leaper", "--num_workers=2", "--num_envs_per_worker=8"),
    *("--encoder_conv_architecture=convnet_impala", "--encoder_conv_mlp_layers", "16"),
    *("--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32", "--rollout=8", "--batch_size=64"),
]


def half(tree: dict, rank: int) -> dict:
    return {
        name: half(entry, rank) if isinstance(entry, dict) else entry[4 * rank : 4 * rank + 4]
        for name, entry in tree.items()
    }


def main() -> None:
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    torch.set_num_threads(1)
    # Different seeds: all must get rank 0's weights, whose seed is the single learner's.
    cfg = parse_distributed_args(
        [*SMALL, *sys.argv[2:], f"--seed={rank}", f"--train_dir={folder}", "--experiment=none"]
    )
    with Processes("cpu") as processes:
        learner = make_learner(split_batch(cfg, 2), functools.partial(DistributedLearner, processes))
        batch = half(torch.load(folder / "batch.pt", weights_only=True), rank)
        learner.train(trajectories(batch, learner.device))
        weights = {name: torch.from_numpy(array) for name, array in learner.weights().items()}
        torch.save({"weights": weights, "frames": learner.env_steps}, folder / f"weights_{rank}.pt")
        processes.wait()


if __name__ == "__main__":
    main()
