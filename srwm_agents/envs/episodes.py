"""Returns and lengths of the episodes in a vector environment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class EpisodeTracker:
    """Sums rewards and steps of each environment's current episode."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs, dtype=np.float64)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    def restart(self) -> None:
        """Set all sums to zero."""
        self._returns[:] = 0
        self._lengths[:] = 0

    def step(
        self, rewards: npt.NDArray[np.float32], ended: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns [N] and lengths [N] so far, this step included; those of ``ended`` environments are final."""
        self._returns += rewards
        self._lengths += 1
        returns, lengths = self._returns.astype(np.float32), self._lengths.copy()
        self._returns[ended] = 0
        self._lengths[ended] = 0
        return returns, lengths
