"""Numbers of environments and sizes of batches that go together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_NEAR = 150
"""So many multiples on each side are tried."""


@dataclass(frozen=True)
class Sizes:
    """What has to be divisible by what, as it was asked for."""

    num_envs_per_worker: int
    """Games of each worker."""
    batch_size: int
    """Steps in a minibatch."""
    rollout: int
    worker_num_splits: int
    num_batches_per_epoch: int
    games: int
    """Number of games, each of which has as many environments in a vector as the others."""
    batched_sampling: bool

    def fit(self) -> bool:
        """Whether training can run with them."""
        if self.num_envs_per_worker % (self.worker_num_splits * self.games) or self.batch_size % self.rollout:
            return False
        rollouts = self.batch_size // self.rollout * self.num_batches_per_epoch
        return not self.batched_sampling or one_divides(rollouts, self.num_envs_per_worker // self.worker_num_splits)

    def nearest(self) -> Sizes | None:
        """The sizes nearest to these that fit, with other environments or another batch; None if none is near."""
        found = [
            replace(self, num_envs_per_worker=environments, batch_size=batch)
            for environments in _multiples(self.num_envs_per_worker, self.worker_num_splits * self.games)
            for batch in _multiples(self.batch_size, self.rollout)
        ]
        return min(filter(Sizes.fit, found), key=self._distance, default=None)

    def advice(self) -> str:
        """The end of an error message: flags with which training can run."""
        sizes = self.nearest()
        if sizes is None:
            return ""
        changed = [
            name for name in ("num_envs_per_worker", "batch_size") if getattr(sizes, name) != getattr(self, name)
        ]
        return "; valid: " + " ".join(f"--{name}={getattr(sizes, name)}" for name in changed)

    def _distance(self, other: Sizes) -> tuple[float, int]:
        pairs = (
            (self.num_envs_per_worker, other.num_envs_per_worker),
            (self.batch_size, other.batch_size),
        )
        return sum(abs(math.log(mine / theirs)) for mine, theirs in pairs), -other.num_envs_per_worker


def one_divides(a: int, b: int) -> bool:
    """Whether one of two positive numbers divides the other."""
    return max(a, b) % min(a, b) == 0


def _multiples(of: int, factor: int) -> range:
    """Multiples of a factor, around a number."""
    middle = max(1, of // factor)
    return range(max(1, middle - _NEAR) * factor, (middle + _NEAR) * factor + 1, factor)
