"""One of the processes of torchrun: updates on its part of each batch, for ``test_ranks.py``.

Arguments: the folder with ``batches.pt``, then flags of training.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import Machine, finish_config
from srwm_agents.integrations.sample_factory.learner import SRWMLearner
from srwm_agents.integrations.sample_factory.ranks import choose_gpu
from srwm_agents.integrations.sample_factory.standalone import make_learner
from srwm_agents.launch import Launch
from srwm_agents.processes import Processes, end_process

# Sample Factory prints a line at import; ours is imported first to keep gym quiet.
from sample_factory.algo.utils.tensor_dict import TensorDict  # isort: skip


def part(tree: Any, rank: int, parts: int, device: Any) -> TensorDict:
    """The rows of one rank, on its device."""
    return TensorDict(
        {
            name: entry.tensor_split(parts)[rank].to(device)
            if isinstance(entry, torch.Tensor)
            else part(entry, rank, parts, device)
            for name, entry in tree.items()
        }
    )


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    launch = Launch.here()
    args = parse_train_args([*sys.argv[2:], f"--train_dir={folder}", "--experiment=ranks"])
    choose_gpu(args, launch)
    cfg = finish_config(args, Machine.share(launch))
    processes = Processes("cuda:0" if cfg.device == "gpu" else "cpu")
    processes.connect()

    def in_step(*settings: Any) -> SRWMLearner:
        learner = SRWMLearner(*settings)
        learner.pool = processes
        return learner

    learner = make_learner(cfg, in_step)
    for batch in torch.load(folder / "batches.pt", weights_only=True):
        stats = learner.train(part(batch, launch.rank, launch.world_size, learner.device))
        assert stats is not None
    assert learner.actor_critic is not None
    weights = {name: tensor.cpu() for name, tensor in learner.actor_critic.state_dict().items()}
    graph = learner.update.graph
    captured = graph is not None and any(capture.graph is not None for capture in graph._captures.values())
    said = {"weights": weights, "frames": learner.env_steps, "rate": float(learner.curr_lr or 0), "captured": captured}
    torch.save(said, folder / f"rank_{launch.rank}.pt")
    processes.wait()
    end_process(0)


if __name__ == "__main__":
    main()
