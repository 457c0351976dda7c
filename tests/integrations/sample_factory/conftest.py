"""A small learner without processes, on made-up trajectories."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import torch

from srwm_agents.integrations.sample_factory import register
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.integrations.sample_factory.config import experiment_folder, finish_config

# Sample Factory prints a line for each of these at import; ours is imported first to keep gym quiet.
from sample_factory.algo.utils.env_info import EnvInfo  # isort: skip
from sample_factory.algo.utils.model_sharing import ParameterServer  # isort: skip
from sample_factory.algo.utils.shared_buffers import alloc_trajectory_tensors  # isort: skip
from sample_factory.model.actor_critic import create_actor_critic  # isort: skip
from sample_factory.model.model_utils import get_rnn_size  # isort: skip

import numpy as np
from gymnasium import spaces

from srwm_agents.integrations.sample_factory.learner import SRWMLearner

SMALL = [
    *("--device=cpu", "--serial_mode=True", "--seed=0", "--games=starpilot,leaper"),
    *("--encoder_conv_architecture=convnet_impala", "--encoder_conv_mlp_layers", "16"),
    *("--hidden_size=16", "--num_layers=1", "--num_heads=2", "--ff_size=32"),
    *("--num_workers=1", "--num_envs_per_worker=8", "--rollout=8", "--batch_size=32"),
]


@pytest.fixture
def small_flags() -> list[str]:
    """Flags of the smallest sensible training."""
    return list(SMALL)


@pytest.fixture
def make_cfg(tmp_path):
    """Flags -> a finished configuration, in a folder of the test's own."""

    def make(*flags: str):
        return finish_config(parse_train_args([*SMALL, f"--train_dir={tmp_path}", "--experiment=e", *flags]))

    return make


def env_info(cfg) -> EnvInfo:
    observations: dict[str, spaces.Space] = {
        "obs": spaces.Box(0, 255, (3, 64, 64), np.uint8),
        "last_reward": spaces.Box(-1, 1, (1,), np.float32),
        "game_index": spaces.Box(0, 1, (1,), np.float32),
    }
    unsplit: Any = None
    return EnvInfo(spaces.Dict(observations), spaces.Discrete(15), cfg.vector_size, False, True, unsplit, unsplit, 1)


@pytest.fixture
def make_model(make_cfg):
    """Flags -> Sample Factory's actor-critic with our parts."""

    def make(*flags: str):
        register()
        cfg = make_cfg(*flags)
        torch.manual_seed(0)
        info = env_info(cfg)
        return cfg, info, create_actor_critic(cfg, info.obs_space, info.action_space)

    return make


@pytest.fixture
def make_learner(make_cfg, monkeypatch):
    """Flags -> an initialised learner."""
    if torch.cuda.is_available():  # as Sample Factory's runner does, before a learner looks for its GPU there
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "0"))

    def make(*flags: str) -> SRWMLearner:
        register()
        cfg = make_cfg(*flags)
        # As Sample Factory's runner does before it starts a learner.
        folder = experiment_folder(cfg)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(cfg))
        versions = torch.zeros(1, dtype=torch.int32)
        learner = SRWMLearner(cfg, env_info(cfg), versions, 0, ParameterServer(0, versions, cfg.serial_mode))
        learner.init()
        return learner

    return make


@pytest.fixture
def make_batch():
    """A learner -> a batch of trajectories as the workers would deliver it, acted by the learner's own policy."""

    def make(learner: SRWMLearner, seed: int = 0, images: int = 256):
        cfg = learner.cfg
        g = torch.Generator().manual_seed(seed)
        number = cfg.batch_size // cfg.rollout * cfg.num_batches_per_epoch
        batch: Any = alloc_trajectory_tensors(learner.env_info, number, cfg.rollout, get_rnn_size(cfg), "cpu", False)
        batch["obs"]["obs"].random_(0, images, generator=g)
        batch["obs"]["last_reward"].uniform_(-1, 1, generator=g)
        batch["obs"]["game_index"][:] = (torch.arange(number) % len(cfg.games.split(",")))[:, None, None]
        batch["rewards"].normal_(generator=g)
        batch["dones"][:] = torch.rand(batch["dones"].shape, generator=g) < 0.2
        batch["policy_id"][:] = 0
        batch["policy_version"][:] = learner.train_step
        model: Any = learner.actor_critic
        model.eval()
        device = learner.device
        state = torch.zeros(number, get_rnn_size(cfg), device=device)
        torch.manual_seed(seed)
        with torch.no_grad():
            for t in range(cfg.rollout + 1):
                batch["rnn_states"][:, t] = state
                if t == cfg.rollout:
                    break
                out = model({name: entry[:, t].to(device) for name, entry in batch["obs"].items()}, state)
                batch["actions"][:, t] = out["actions"].view(batch["actions"][:, t].shape)
                batch["log_prob_actions"][:, t] = out["log_prob_actions"]
                batch["action_logits"][:, t] = out["action_logits"]
                batch["values"][:, t] = out["values"]
                state = out["new_rnn_states"] * (~batch["dones"][:, t, None].to(device))
        return _moved(batch, device)

    return make


def _moved(tree, device):
    """As Sample Factory's batcher does it."""
    if isinstance(tree, torch.Tensor):
        return tree.to(device)
    return type(tree)((name, _moved(entry, device)) for name, entry in tree.items())
