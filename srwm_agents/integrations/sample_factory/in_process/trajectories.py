"""Trajectory buffers without the states that nobody reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sample_factory.algo.learning import batcher
from sample_factory.algo.utils import shared_buffers
from sample_factory.algo.utils.shared_buffers import alloc_trajectory_tensors, init_tensor
from sample_factory.algo.utils.tensor_dict import TensorDict


@contextmanager
def only_first_states(cfg: Any) -> Iterator[None]:
    """While the block runs, Sample Factory allocates ``rnn_states`` as [N, 1, S] in place of [N, T + 1, S].

    The learner runs the memory again from the state before a trajectory's first step; only without V-trace
    (``--with_vtrace False``), which is Sample Factory's own learner, are others read, and nothing changes then. An
    SRWM's state is large: 53 kB an environment and step in the paper's model, an image 12 kB.
    """
    if not cfg.with_vtrace:
        yield
        return
    modules: tuple[Any, ...] = (shared_buffers, batcher)
    for module in modules:
        module.alloc_trajectory_tensors = _allocate
    try:
        yield
    finally:
        for module in modules:
            module.alloc_trajectory_tensors = alloc_trajectory_tensors


def _allocate(env_info: Any, num_traj: int, rollout: int, rnn_size: int, device: Any, share: bool) -> TensorDict:
    tensors = alloc_trajectory_tensors(env_info, num_traj, rollout, 1, device, share)
    tensors["rnn_states"] = init_tensor([num_traj, 1], torch.float32, [rnn_size], device, share)
    return tensors
