"""Stable-Baselines3 with our memory, in a project that has the extra ``sb3`` alone: what such projects do with it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecNormalize

import srwm_agents

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}


class Reach(gymnasium.Env):
    """Dictionaries as observations, continuous actions, episodes of ten steps."""

    observation_space = spaces.Dict({"at": spaces.Box(-1, 1, (2,)), "goal": spaces.Box(-1, 1, (2,))})
    action_space = spaces.Box(-1, 1, (2,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.at, self.goal = 0, np.zeros(2, np.float32), self.np_random.uniform(-1, 1, 2)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.at = np.clip(self.at + 0.2 * action, -1, 1).astype(np.float32)
        return self._observation(), -float(np.abs(self.at - self.goal).sum()), False, self.steps == 10, {}

    def _observation(self) -> Any:
        return {"at": self.at, "goal": self.goal.astype(np.float32)}


def train_and_load(policy: str, games: VecEnv, folder: Path) -> None:
    """Train, save, load: the same actions of the same state."""
    env = VecNormalize(games)
    options: dict[str, Any] = {"policy_kwargs": {"core": "srwm", "core_settings": SETTINGS}, "device": "cpu"}
    model = RecurrentPPO(policy, env, n_steps=32, batch_size=64, n_epochs=1, seed=0, **options).learn(64)
    model.save(folder / "model.zip")
    env.save(str(folder / "statistics.pkl"))
    loaded = RecurrentPPO.load(folder / "model.zip", VecNormalize.load(str(folder / "statistics.pkl"), games))
    observation: Any = env.reset()
    state, other, starts = None, None, np.ones(env.num_envs, dtype=bool)
    for _ in range(3):
        actions, state = model.predict(observation, state, starts, deterministic=True)
        again, other = loaded.predict(observation, other, starts, deterministic=True)
        np.testing.assert_array_equal(actions, again)
        observation, _, starts, _ = env.step(actions)
    mean, _ = evaluate_policy(loaded, env, n_eval_episodes=2, warn=False)
    print(f"{policy}: trained, saved, loaded; mean return {mean:.1f}")


if __name__ == "__main__":
    srwm_agents.register("sb3")
    with tempfile.TemporaryDirectory() as folder:
        train_and_load("SRWMMlpPolicy", make_vec_env("CartPole-v1", 2), Path(folder))
        in_processes = make_vec_env(Reach, 2, vec_env_cls=SubprocVecEnv)
        train_and_load("SRWMMultiInputPolicy", in_processes, Path(folder))
        in_processes.close()
    print(f"RecurrentPPO works with our memory: gymnasium {gymnasium.__version__}, NumPy {np.__version__}")
