"""Regression test: ten updates of the learner equal recorded ones.

``recorded_updates.json`` was recorded at commit 13e1812, before the algorithm had a package of its own, with PyTorch
2.13.0 on a CPU. ``python tests/learning/test_recorded_updates.py`` rewrites it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from srwm_agents.integrations.sample_factory import register
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import experiment_folder, finish_config

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.utils.env_info import EnvInfo  # isort: skip
from sample_factory.algo.utils.model_sharing import ParameterServer  # isort: skip
from sample_factory.algo.utils.shared_buffers import alloc_trajectory_tensors  # isort: skip
from sample_factory.model.model_utils import get_rnn_size  # isort: skip

from srwm_agents.integrations.sample_factory.learner import SRWMLearner

FILE = Path(__file__).with_name("recorded_updates.json")
UPDATES = 10
LOSSES = ("loss", "policy_loss", "value_loss", "exploration_loss", "kl_loss", "advantage_loss", "consistency_loss",
          "entropy", "kl_divergence", "value", "target", "adv_std", "adv_mean", "grad_norm")  # fmt: skip

CASES: dict[str, list[str]] = {
    "paper": [
        "--policy_loss=vtrace", "--loss_reduction=sum", "--optimizer=rmsprop", "--policy_head_scale=1",
        "--max_grad_norm=40",
    ],
    "vtrace_clips": ["--policy_loss=vtrace", "--vtrace_rho=1.2", "--vtrace_c=0.8", "--kl_loss_coeff=0.1"],
    "ppo_scales": ["--policy_loss=ppo", "--balance_games=True", "--normalize_advantages=True", "--num_epochs=2"],
    "detached_critic": ["--policy_loss=ppo", "--critic=detached", "--game_gammas=leaper=.9"],
    "separate_critic": ["--policy_loss=ppo", "--critic=separate", "--balance_games=True"],
    "popart": ["--policy_loss=ppo", "--popart=True", "--popart_step_size=0.1", "--reward_treatment=return_norm"],
    "shifted": ["--policy_loss=vtrace", "--augment_shift=3"],
    "consistent": [
        "--policy_loss=ppo", "--augment_shift=3", "--augment_consistency=0.1", "--balance_games=True",
        "--critic=separate",
    ],
    "symmetric_kl": ["--exploration_loss=symmetric_kl", "--policy_loss=ppo", "--popart=True"],
}  # fmt: skip
"""One for each critic, each treatment of a game's units, each use of moved images, each optimiser and policy loss."""

_FLAGS = [
    *("--device=cpu", "--serial_mode=True", "--seed=0", "--games=starpilot,leaper", "--learning_rate=1e-3"),
    *("--encoder_conv_architecture=convnet_impala", "--encoder_conv_mlp_layers", "16"),
    *("--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32"),
    *("--num_workers=1", "--num_envs_per_worker=8", "--rollout=8", "--batch_size=32"),
]


def make_learner(folder: Path, flags: Sequence[str]) -> SRWMLearner:
    """An initialised learner without processes around it."""
    register()
    cfg = finish_config(parse_train_args([*_FLAGS, f"--train_dir={folder}", "--experiment=e", *flags]))
    experiment_folder(cfg).mkdir(parents=True, exist_ok=True)
    (experiment_folder(cfg) / "config.json").write_text(json.dumps(cfg))
    observations: dict[str, spaces.Space] = {
        "obs": spaces.Box(0, 255, (3, 64, 64), np.uint8),
        "last_reward": spaces.Box(-1, 1, (1,), np.float32),
        "game_index": spaces.Box(0, 1, (1,), np.float32),
    }
    info = EnvInfo(spaces.Dict(observations), spaces.Discrete(15), cfg.vector_size, False, True, [], True, 1)
    versions = torch.zeros(1, dtype=torch.int32)
    torch.manual_seed(0)
    learner = SRWMLearner(cfg, info, versions, 0, ParameterServer(0, versions, cfg.serial_mode))
    learner.init()
    return learner


def make_batch(learner: SRWMLearner, seed: int) -> Any:
    """Trajectories drawn without a model: rewards of two sizes, ends of episodes, a step of another policy."""
    cfg, g = learner.cfg, torch.Generator().manual_seed(seed)
    number = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
    batch: Any = alloc_trajectory_tensors(learner.env_info, number, cfg.rollout, get_rnn_size(cfg), "cpu", False)
    batch["obs"]["obs"].random_(0, 256, generator=g)
    batch["obs"]["last_reward"].uniform_(-1, 1, generator=g)
    batch["obs"]["game_index"][:] = (torch.arange(number) % 2)[:, None, None]
    batch["rewards"].normal_(generator=g)
    batch["rewards"][::2] *= 10
    batch["dones"][:] = torch.rand(batch["dones"].shape, generator=g) < 0.2
    batch["time_outs"][:] = False
    batch["policy_id"][:] = 0
    batch["policy_id"][0, 2] = 1
    batch["policy_version"][:] = learner.train_step
    batch["action_logits"].normal_(generator=g)
    batch["actions"][:] = torch.randint(15, batch["actions"].shape, generator=g).to(batch["actions"].dtype)
    log_probs = batch["action_logits"].log_softmax(-1)
    batch["log_prob_actions"][:] = log_probs.gather(-1, batch["actions"].view(number, -1, 1).long()).squeeze(-1)
    batch["values"].normal_(generator=g)
    batch["rnn_states"].normal_(std=0.01, generator=g)
    return batch


def record(flags: Sequence[str]) -> dict[str, Any]:
    """Losses of each of ten updates; the first one's gradients and the weights' changes, tensor by tensor.

    A tensor is kept as its norm and its product with a fixed random direction of length 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        learner = make_learner(Path(folder), flags)
        learner._should_save_summaries = lambda: True  # type: ignore[method-assign]
        model: Any = learner.actor_critic
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        losses: list[list[float]] = []
        gradients: dict[str, list[float]] = {}
        for update in range(UPDATES):
            batch = make_batch(learner, update)
            torch.manual_seed(update)
            stats: Any = learner.train(batch)
            losses.append([float(stats["train"][name]) for name in LOSSES])
            if update == 0:
                gradients = {name: _seen(p.grad) for name, p in model.named_parameters() if p.grad is not None}
        moved = {name: _seen(p.detach() - before[name]) for name, p in model.named_parameters()}
    return {"losses": losses, "gradients": gradients, "moved": moved}


def _seen(tensor: torch.Tensor) -> list[float]:
    g = torch.Generator().manual_seed(tensor.numel())
    direction = torch.randn(tensor.numel(), generator=g) / math.sqrt(tensor.numel())
    return [float(tensor.norm()), float(tensor.flatten() @ direction)]


@pytest.mark.parametrize("case", sorted(CASES))
def test_ten_updates_are_those_that_were_recorded(case: str) -> None:
    expected, found = json.loads(FILE.read_text())[case], record(CASES[case])
    for update, (was, now) in enumerate(zip(expected["losses"], found["losses"], strict=True)):
        # Float32 sums in another order; through Adam, whose first steps have the size of the learning rate however
        # small the gradient is, a difference in rounding grows from update to update.
        np.testing.assert_allclose(now, was, rtol=1e-4 if update == 0 else 3e-3, atol=3e-4, err_msg=f"update {update}")
    for part, tolerance in (("gradients", 1e-4), ("moved", 2e-2)):
        assert found[part].keys() == expected[part].keys()
        for name, (norm, along) in expected[part].items():
            now = found[part][name]
            assert now == pytest.approx([norm, along], abs=tolerance * norm + 1e-7), f"{part} of {name}"


def main() -> None:
    """Record every case."""
    torch.set_num_threads(1)
    recorded = {case: record(flags) for case, flags in CASES.items()}
    FILE.write_text(json.dumps(recorded, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
