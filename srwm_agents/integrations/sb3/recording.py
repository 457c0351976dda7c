"""A callback for ``RecurrentPPO`` that records what the actor's memory does while it collects rollouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from torch.distributions import Categorical

from srwm_agents.inspection import Recorder
from srwm_agents.integrations.sb3.policies import SRWMMlpPolicy


class RecorderCallback(BaseCallback):
    """Records some steps of one environment during ``learn``, and writes them as ``inspect`` does.

    Example::

        model.learn(40_000, callback=RecorderCallback("inspection", after=30_000))
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, steps: int = 300, after: int = 0, env: int = 0, screens: bool = False
    ) -> None:
        """Make a callback.

        Args:
            folder: of the files.
            steps: of the environment that are recorded.
            after: time steps of training (of all environments, as SB3 counts them) before the first one.
            env: which of the environments.
            screens: also keep what it draws; its ``render_mode`` must be "rgb_array".

        Raises:
            ValueError: a number out of range.
        """
        super().__init__()
        if after < 0:
            raise ValueError(f"after is {after}, expected at least 0")
        if steps < 1:
            raise ValueError(f"steps is {steps}, expected at least 1")
        self.folder = Path(folder)
        self.steps, self.after, self.env, self.screens = steps, after, env, screens
        self.recorder: Recorder | None = None
        self._seen: Any = None
        self._written = False

    def _on_training_start(self) -> None:
        policy = self.model.policy
        if not isinstance(policy, SRWMMlpPolicy):
            raise ValueError(f"the policy is a {type(policy).__name__}, expected SRWMMlpPolicy or one of its kind")
        if not 0 <= self.env < self.training_env.num_envs:
            raise ValueError(f"env is {self.env}, allowed: 0 to {self.training_env.num_envs - 1}")
        if self.recorder is None:
            self.recorder = Recorder(
                policy.lstm_actor,
                rows=[self.env],
                max_steps=self.steps,
                title=f"Inside {policy.core} while it learns, from step {self.after:,}",
            )
        self.recorder.start()

    def _on_rollout_start(self) -> None:
        if self._seen is None and self.screens:
            self._seen = self.training_env.get_images()

    def _on_step(self) -> bool:
        assert self.recorder is not None
        if self.num_timesteps > self.after and not self.recorder.full:
            seen = self.locals
            observation = seen["obs_tensor"]
            flat = None if isinstance(observation, dict) or observation.dim() > 2 else observation
            policy: Any = self.model.policy
            chosen = policy.action_dist.distribution
            self.recorder.step(
                seen["rewards"],
                seen["dones"],
                values=seen["values"].flatten(),
                probabilities=chosen.probs if isinstance(chosen, Categorical) else None,
                actions=np.asarray(seen["actions"]),
                screens=self._seen,
                observations=flat,
            )
        if self.screens and not self.recorder.full:
            self._seen = self.training_env.get_images()
        if self.recorder.full:
            self._write()
        return True

    def _on_training_end(self) -> None:
        assert self.recorder is not None
        self.recorder.stop()
        if len(self.recorder):
            self._write()

    def _write(self) -> None:
        assert self.recorder is not None
        self.recorder.stop()
        if not self._written:
            self._written = True
            self.recorder.write(self.folder)
