"""The learner of one process or of several, and the queue of rollouts before it."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy.typing as npt

from srwm_agents.distributed.rollouts import Arrays, CollectedRollout, concatenate, rows
from srwm_agents.integrations.sample_factory.learner import SRWMLearner
from srwm_agents.integrations.sample_factory.model import portable_weights
from srwm_agents.processes import Processes


class DistributedLearner(SRWMLearner):
    """The learner of the training command, with gradients averaged over the processes that ``torchrun`` started.

    Each process learns from its own collectors' rollouts; ``batch_size`` is that of all processes together. Weights and
    optimiser state stay equal, because they start equal and get the same gradients. The main process saves.
    """

    def __init__(self, processes: Processes, *args: Any) -> None:
        super().__init__(*args)
        self.pool = processes

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Weights for the collectors, under an ``Agent``'s names."""
        assert self.actor_critic is not None
        # Copied, because on the CPU the next update would change them.
        return {name: tensor.clone().numpy() for name, tensor in portable_weights(self.actor_critic).items()}


class RolloutQueue:
    """Queue of collectors' rollouts that gives batches of a fixed number of trajectories (rows)."""

    def __init__(self, rows_per_batch: int, max_lag: int) -> None:
        """``max_lag``: a rollout ``max_lag`` or more updates old is dropped, as ``--max_policy_lag``."""
        self.rows_per_batch = rows_per_batch
        self.max_lag = max_lag
        self.dropped = 0
        """Number of dropped rows."""
        self._rollouts: deque[tuple[Arrays, int]] = deque()

    def put(self, rollout: CollectedRollout) -> None:
        """Append a rollout."""
        self._rollouts.append((rollout.arrays, rollout.version))

    def take(self, version: int) -> Arrays | None:
        """Remove and return the oldest rows as a batch for update ``version``; None if there are too few."""
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
