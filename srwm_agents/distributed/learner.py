"""Sample Factory's learner in one process or in several, and the rollouts that wait for it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy.typing as npt
from sample_factory.algo.utils.tensor_dict import TensorDict

from srwm_agents.distributed.rollouts import Arrays, CollectedRollout, concatenate, rows
from srwm_agents.integrations.sample_factory.learner import SRWMLearner
from srwm_agents.integrations.sample_factory.model import portable_weights
from srwm_agents.processes import Processes


class DistributedLearner(SRWMLearner):
    """The learner of ``train_rl.py``, with its gradients averaged over the processes that ``torchrun`` started.

    Each process learns from its own collectors' rollouts, ``batch_size`` over all of them; weights and optimiser are
    the same everywhere, because they begin the same and get the same gradients. The first process saves.
    """

    def __init__(self, processes: Processes, *args: Any) -> None:
        super().__init__(*args)
        self.processes = self.pool = processes

    def init(self) -> Any:
        data = super().init()
        assert self.actor_critic is not None
        self.processes.share(self.actor_critic)
        return data

    def train(self, batch: TensorDict) -> dict[str, Any] | None:
        before = self.env_steps
        stats = super().train(batch)
        self.env_steps = before + (self.env_steps - before) * self.processes.number
        return stats

    def _save_impl(self, *args: Any, **kwargs: Any) -> bool:
        return super()._save_impl(*args, **kwargs) if self.processes.first else False

    def _export(self, kind: str) -> None:
        if self.processes.first:
            super()._export(kind)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """What collectors act with, as an ``Agent`` names it."""
        assert self.actor_critic is not None
        # Copies: on the CPU these would be the very weights that the next update changes.
        return {name: tensor.clone().numpy() for name, tensor in portable_weights(self.actor_critic).items()}


class RolloutQueue:
    """Rollouts of many collectors, cut into batches of as many rows as an update takes."""

    def __init__(self, rows_per_batch: int, max_lag: int) -> None:
        """A rollout that is ``max_lag`` updates behind or more is left out, ``--max_policy_lag``."""
        self.rows_per_batch = rows_per_batch
        self.max_lag = max_lag
        self.dropped = 0
        """Rows that were too old."""
        self._rollouts: deque[tuple[Arrays, int]] = deque()

    def put(self, rollout: CollectedRollout) -> None:
        """Add all rows of a rollout."""
        self._rollouts.append((rollout.arrays, rollout.version))

    def take(self, version: int) -> Arrays | None:
        """The oldest rows that make a batch for update ``version``, or None while there are too few."""
        fresh = deque((arrays, made) for arrays, made in self._rollouts if version - made < self.max_lag)
        self.dropped += self._count(self._rollouts) - self._count(fresh)
        self._rollouts = fresh
        if self._count(fresh) < self.rows_per_batch:
            return None
        parts: list[Arrays] = []
        missing = self.rows_per_batch
        while missing:
            arrays, made = self._rollouts.popleft()
            number = len(arrays["rewards"])
            parts.append(rows(arrays, 0, missing))
            if number > missing:
                self._rollouts.appendleft((rows(arrays, missing, number), made))
            missing -= min(missing, number)
        return concatenate(parts)

    @staticmethod
    def _count(rollouts: deque[tuple[Arrays, int]]) -> int:
        return sum(len(arrays["rewards"]) for arrays, _ in rollouts)
