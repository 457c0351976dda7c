"""What an agent can observe beside an environment's own observation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from srwm_agents.spaces.actions import ActionSpec

Array = npt.NDArray[Any]

LAST_REWARD, LAST_ACTION, EPISODE_STEP = "last_reward", "last_action", "episode_step"
ADDED = (LAST_ACTION, LAST_REWARD, EPISODE_STEP)
"""Names of the entries."""

PERIODS = 4 * 2 ** np.arange(8)
"""Steps after which each pair of sine and cosine repeats: 4, 8, … 512."""


@dataclass(frozen=True)
class AddedEntries:
    """Which entries are added: ``last_reward`` float32 [N, 1], clipped to ±1; ``last_action`` float32 [N, width],
    one-hot or from -1 to 1, both of zeros at an episode's first step; ``episode_step`` float32 [N, 16], sines and
    cosines of the steps since the episode began, with periods of 4, 8, … 512 steps.

    Source of ``episode_step``: the position encoding of Vaswani et al., NeurIPS 2017, section 3.5. Deviation: periods
    are powers of 2, so that a memory can address what it saw k steps ago by turning each pair by the same angle.
    """

    actions: ActionSpec
    last_action: bool = False
    last_reward: bool = False
    episode_step: bool = False

    @property
    def spaces(self) -> dict[str, spaces.Box]:
        """The spaces of the entries of one environment."""
        entries: dict[str, spaces.Box] = {}
        if self.last_reward:
            entries[LAST_REWARD] = spaces.Box(-1, 1, (1,), np.float32)
        if self.last_action:
            entries[LAST_ACTION] = spaces.Box(-np.inf, np.inf, (self.actions.width,), np.float32)
        if self.episode_step:
            entries[EPISODE_STEP] = spaces.Box(-1, 1, (2 * len(PERIODS),), np.float32)
        return entries

    def arrays(self, rewards: Array, actions: Array, steps: Array) -> dict[str, Array]:
        """The entries of N environments.

        Args:
            rewards: [N], of the step before.
            actions: [N, …], of the step before.
            steps: integers [N], since each episode began; 0 where an episode begins, and reward and action are ignored.
        """
        entries: dict[str, Array] = {}
        begun = steps > 0
        if self.last_reward:
            entries[LAST_REWARD] = np.where(begun, np.clip(rewards, -1, 1), 0).astype(np.float32)[:, None]
        if self.last_action:
            code = np.zeros((len(steps), self.actions.width), np.float32)
            if begun.any():
                code[begun] = self.actions.encoded(actions[begun])
            entries[LAST_ACTION] = code
        if self.episode_step:
            angles = (2 * np.pi / PERIODS) * (steps[:, None] % PERIODS)
            entries[EPISODE_STEP] = np.concatenate([np.sin(angles), np.cos(angles)], 1).astype(np.float32)
        return entries
