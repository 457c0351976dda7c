"""A TorchRL transform that records what a policy's memory does while it acts in an environment."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import Transform

from srwm_agents.inspection import Recorder


class RecorderTransform(Transform):
    """Hands each step of the environment to a :class:`srwm_agents.inspection.Recorder`; it changes nothing.

    Put it last into the environment that the policy acts in, in the process in which it acts (``env.rollout``,
    ``Collector``). Read are "reward", "done", and, where they are there, "action", "logits" (of a categorical policy),
    "state_value", "pixels" (uint8 [*batch, height, width, 3]) and "observation" (numbers).
    """

    def __init__(self, recorder: Recorder) -> None:
        """``recorder``: of the policy, or of its core; it listens from its ``start`` on."""
        super().__init__()
        self.recorder = recorder

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        rows = tensordict.batch_size.numel()
        logits, action = _entry(tensordict, "logits", rows), _entry(tensordict, "action", rows)
        if action is not None and logits is not None and action.shape == logits.shape:
            action = action.long().argmax(-1)  # one-hot
        observation, pixels = _entry(tensordict, "observation", rows), _entry(tensordict, "pixels", rows)
        self.recorder.step(
            next_tensordict["reward"].reshape(rows),
            next_tensordict["done"].reshape(rows),
            values=_entry(tensordict, "state_value", rows),
            probabilities=None if logits is None else logits.softmax(-1),
            actions=action,
            screens=None if pixels is None or pixels.shape[-1] != 3 else pixels.cpu().numpy(),
            observations=None if observation is None or observation.dim() > 2 else observation,
        )
        return next_tensordict


def _entry(tensordict: TensorDictBase, key: str, rows: int) -> torch.Tensor | None:
    """An entry [rows, …]; None where there is none."""
    entry: Any = tensordict.get(key, None)
    return None if entry is None else entry.reshape(rows, *entry.shape[len(tensordict.batch_size) :])
