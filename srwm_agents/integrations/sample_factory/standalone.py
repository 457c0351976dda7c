"""The learner without Sample Factory's workers, for an engine that brings trajectories of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from sample_factory.algo.utils.model_sharing import ParameterServer
from sample_factory.algo.utils.tensor_dict import TensorDict
from sample_factory.utils.gpu_utils import set_global_cuda_envvars
from sample_factory.utils.utils import init_file_logger
from torch import Tensor

from srwm_agents.integrations.sample_factory.config import save_config
from srwm_agents.integrations.sample_factory.learner import SRWMLearner
from srwm_agents.integrations.sample_factory.processes import tolerate_full_disk
from srwm_agents.integrations.sample_factory.runner import environment_info
from srwm_agents.integrations.sample_factory.training import register

Learner = TypeVar("Learner", bound=SRWMLearner)
Tree = Mapping[str, Any]


def begin_experiment(cfg: Any) -> None:
    """Log into the experiment's folder, which exists, and write its request there."""
    init_file_logger(cfg)
    tolerate_full_disk()
    save_config(cfg)


def make_learner(cfg: Any, learner: Callable[..., Learner]) -> Learner:
    """A learner in this process that has loaded the experiment's checkpoint, if there is one.

    ``learner`` is :class:`SRWMLearner` or a subclass, or makes one. The experiment's folder must exist.
    """
    register(cfg.env)
    set_global_cuda_envvars(cfg)
    versions = torch.zeros(cfg.num_policies, dtype=torch.int32)
    made = learner(cfg, environment_info(cfg), versions, 0, ParameterServer(0, versions, True))
    made.init()
    return made


def trajectories(rollouts: Tree, device: torch.device | None) -> TensorDict:
    """Nested tensors as :meth:`SRWMLearner.train` takes them, on its device.

    Args:
        rollouts: "obs" with entries [B, T+1, …]; "rnn_states" [B, 1, S], the state before the first step; [B, T]
            "actions", "log_prob_actions", "rewards", "dones", "policy_version"; "action_logits" [B, T, A]; "values"
            [B, T].
        device: the learner's.
    """
    moved: Any = _moved(rollouts, device)
    dones = moved["dones"]
    moved["time_outs"] = torch.zeros_like(dones)  # Procgen ends an episode that ran out of time like any other
    moved["policy_id"] = torch.zeros_like(moved["policy_version"])
    # One value more, of the step after the last, which V-trace computes by itself.
    moved["values"] = torch.cat([moved["values"], moved["values"][:, -1:]], dim=1)
    return moved


def _moved(tree: Tree, device: torch.device | None) -> TensorDict:
    return TensorDict(
        {
            name: entry.to(device, non_blocking=True) if isinstance(entry, Tensor) else _moved(entry, device)
            for name, entry in tree.items()
        }
    )
