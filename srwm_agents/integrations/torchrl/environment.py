"""Procgen as a TorchRL environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase, InitTracker, TransformedEnv

from srwm_agents.envs import IMAGE_SHAPE, NUM_ACTIONS

if TYPE_CHECKING:
    from srwm_agents.envs import ProcgenVectorEnv


class ProcgenEnv(EnvBase):
    """Many Procgen games as one TorchRL environment of batch size [N]; environment i plays game i mod len(games).

    Entries: ``obs`` uint8 [N, 3, 64, 64], ``last_reward`` float32 [N, 1] (clipped to ±1, 0 at an episode's first
    step), with ``last_action`` also that one-hot [N, 15], with ``random_starts`` also ``exploring`` [N, 1];
    ``game_index`` int64 [N, 1]; ``action`` int64 [N]; under "next" also ``reward`` [N, 1] (raw), ``done``,
    ``terminated``, and ``episode_return`` and ``episode_length`` [N, 1], which are final where ``done``.

    The simulator begins a new episode in the step that ends the old one. So where ``done``, ("next", "obs") is already
    the next episode's first observation, and TorchRL's reset of those environments returns it again. An episode's last
    observation is never returned; values do not need it.
    """

    def __init__(self, vector: ProcgenVectorEnv) -> None:
        """``vector``: from ``srwm_agents.envs.make_procgen``, with ``device`` None."""
        batch, one = torch.Size([vector.num_envs]), torch.Size([vector.num_envs, 1])
        super().__init__(device=torch.device("cpu"), batch_size=batch)
        self.vector = vector
        self._game_index = torch.from_numpy(vector.game_index)[:, None]
        entries: dict[str, Any] = {
            "obs": Bounded(0, 255, torch.Size([*batch, *IMAGE_SHAPE]), dtype=torch.uint8),
            "last_reward": Bounded(-1.0, 1.0, one, dtype=torch.float32),
            "game_index": Bounded(0, max(1, len(vector.games) - 1), one, dtype=torch.int64),
            "episode_return": Unbounded(one, dtype=torch.float32),
            "episode_length": Unbounded(one, dtype=torch.int64),
        }
        self._names = list(vector.single_observation_space.spaces)  # type: ignore[attr-defined]
        for name, width in (("last_action", NUM_ACTIONS), ("exploring", 1)):
            if name in self._names:
                entries[name] = Bounded(0.0, 1.0, torch.Size([*batch, width]), dtype=torch.float32)
        self.observation_spec = Composite(entries, shape=batch)
        self.action_spec = Categorical(NUM_ACTIONS, shape=batch, dtype=torch.int64)
        self.reward_spec = Unbounded(one, dtype=torch.float32)
        self.done_spec = Composite(
            {name: Categorical(2, one, dtype=torch.bool) for name in ("done", "terminated")}, shape=batch
        )
        self._observation: dict[str, Any] = {}
        self._fresh = np.zeros(vector.num_envs, bool)
        """[N], True where an environment is at an episode's first observation."""
        self._next_seed: int | None = None

    def _entries(self, observation: dict[str, Any], returns: Any, lengths: Any) -> dict[str, torch.Tensor]:
        return {
            **{name: torch.from_numpy(observation[name]) for name in self._names},
            "game_index": self._game_index,
            "episode_return": torch.from_numpy(returns)[:, None],
            "episode_length": torch.from_numpy(lengths)[:, None],
        }

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        number = self.vector.num_envs
        mask = None if tensordict is None else tensordict.get("_reset", None)
        wanted = np.ones(number, bool) if mask is None else mask.reshape(number).numpy()
        if mask is None or (wanted.all() and not self._fresh.all()):
            self._observation, _ = self.vector.reset(seed=self._next_seed)
            self._next_seed = None
            self._fresh[:] = True
        elif (wanted & ~self._fresh).any():
            within = int(np.flatnonzero(wanted & ~self._fresh)[0])
            raise ValueError(
                f"environment {within} is within an episode: the simulator can only reset all environments at once"
            )
        # Otherwise these environments are already at their next episode's first observation.
        zeros = np.zeros(number, np.float32), np.zeros(number, np.int64)
        return TensorDict(self._entries(self._observation, *zeros), self.batch_size)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action: Any = tensordict.get("action")
        self._observation, rewards, self._fresh, _, infos = self.vector.step(action)
        done = torch.from_numpy(self._fresh.copy())[:, None]
        return TensorDict(
            {
                **self._entries(self._observation, infos["episode_return"], infos["episode_length"]),
                "reward": torch.from_numpy(rewards)[:, None],
                "done": done,
                "terminated": done.clone(),
            },
            self.batch_size,
        )

    def _set_seed(self, seed: int | None) -> None:
        self._next_seed = seed

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Free the simulator."""
        if not self.is_closed:
            self.vector.close()
        super().close(raise_if_closed=raise_if_closed)


def make_environment(games: str, num_envs: int, **options: Any) -> TransformedEnv:
    """Make a :class:`ProcgenEnv` with the ``InitTracker`` that recurrent modules need; append their primers to it.

    Args:
        games, num_envs, options: as in ``srwm_agents.envs.make_procgen``.

    Raises:
        ValueError, SimulatorError: as ``srwm_agents.envs.make_procgen``.
    """
    from srwm_agents.envs import make_procgen  # which needs gymnasium; TorchRL does not

    return TransformedEnv(ProcgenEnv(make_procgen(games, num_envs, **options)), InitTracker())
