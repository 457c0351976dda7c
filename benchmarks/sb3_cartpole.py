r"""CartPole without velocities: what a memory is worth, in Stable-Baselines3.

    python benchmarks/sb3_cartpole.py --methods srwm --seeds 0,1,2 --output experiments/sb3/cartpole_srwm.json
    python benchmarks/sb3_cartpole.py --methods "lstm,PPO MlpPolicy" --seeds 0,1,2 \
        --output experiments/sb3/cartpole_others.json

The cart's and the pole's velocities are hidden, so that a policy has to remember where they were. Trains RecurrentPPO
with an SRWM, with an LSTM (any core will do), and SB3's own feed-forward PPO. Every 8,192 steps 20 greedy episodes (of
at most 500 steps, one point a step) are played; training ends when their mean reaches 475, or after --steps. The best
model of these evaluations then plays 100 greedy episodes with other seeds: that is the score. Prints it, writes JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import srwm_agents.integrations.sb3  # noqa: F401  (puts the policies' names into RecurrentPPO)

CORE_SETTINGS = {
    "hidden_size": 32,
    "num_layers": 1,
    "num_heads": 2,
    "ff_size": 64,
    # Positions are numbers, not choices: a softmax over them hides how far the pole has moved.
    "input_softmax": False,
    "input_norm": True,
    # With a wider W_q, queries and keys differ from the first step on; an SRWM changes itself by their difference.
    "query_scale": 3.0,
    # Without it the shift of the weights grows over an episode of hundreds of steps (ops/srwm/README.md).
    "state_decay": 0.7,
}
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 512,
    "n_epochs": 10,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    # With three times this learning rate and no bound on the divergence, policies with memory come and go.
    "target_kl": 0.03,
}
LEARNING_RATE = 1e-3
NUM_ENVS = 16
SOLVED = 475
METHODS = ("srwm", "lstm", "PPO MlpPolicy")
_DECAY_90 = {"state_decay": 0.9}
VARIANTS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "state_decay 1": {"core": {"state_decay": 1.0}},
    "state_decay .95": {"core": {"state_decay": 0.95}},
    "state_decay .9": {"core": _DECAY_90},
    "state_decay .8": {"core": {"state_decay": 0.8}},
    "state_decay .9 query_scale 1": {"core": {**_DECAY_90, "query_scale": 1.0}},
    "state_decay .9 learning rate 2e-3": {"core": _DECAY_90, "learning_rate": 2e-3},
    "state_decay .9 target_kl .06": {"core": _DECAY_90, "ppo": {"target_kl": 0.06}},
    "state_decay .9 no input_norm": {"core": {**_DECAY_90, "input_norm": False}},
    "state_decay .9 own critic core": {"core": _DECAY_90, "policy": {"shared_lstm": False, "enable_critic_lstm": True}},
    "state_decay .9 two layers": {"core": {**_DECAY_90, "num_layers": 2, "num_heads": 4}},
}
"""What was compared before the settings above were chosen; experiments/sb3/cartpole_settings.json."""


class WithoutVelocities(gymnasium.ObservationWrapper):
    """CartPole that shows its cart's position and its pole's angle only."""

    def __init__(self, env: gymnasium.Env | None = None) -> None:
        super().__init__(env or gymnasium.make("CartPole-v1"))
        self.observation_space = gymnasium.spaces.Box(-5, 5, (2,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[[0, 2]]


def train(
    method: str, steps: int, seed: int, callback: BaseCallback | None = None, variant: str = "as they are"
) -> tuple[BaseAlgorithm, VecNormalize]:
    """Train; returns the model and the environments whose statistics normalise its observations."""
    env = VecNormalize(make_vec_env(WithoutVelocities, NUM_ENVS, seed=seed), gamma=PPO_SETTINGS["gamma"])
    changes = VARIANTS[variant]
    rate = changes.get("learning_rate", LEARNING_RATE)
    settings = {**PPO_SETTINGS, **changes.get("ppo", {}), "learning_rate": lambda left: rate * left}
    settings |= {"seed": seed, "device": "cpu"}
    if method == "PPO MlpPolicy":
        return PPO("MlpPolicy", env, **settings).learn(steps, callback), env
    policy = {
        "core": method,
        "core_settings": {**CORE_SETTINGS, **changes.get("core", {})},
        "shared_lstm": True,
        "enable_critic_lstm": False,
        **changes.get("policy", {}),
    }
    return RecurrentPPO("SRWMMlpPolicy", env, policy_kwargs=policy, **settings).learn(steps, callback), env


class BestModel(EvalCallback):
    """SB3's evaluation while training; ``restore`` brings back the best model and its observations' statistics."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.curve: list[tuple[int, float]] = []
        """(step, mean return) of each evaluation."""
        super().__init__(
            VecNormalize(make_vec_env(WithoutVelocities, 10, seed=seed + 500), training=False, norm_reward=False),
            callback_on_new_best=SaveStatistics(folder / "statistics.pkl"),
            callback_after_eval=StopWhenSolved(),
            n_eval_episodes=20,
            eval_freq=8192 // NUM_ENVS,
            best_model_save_path=str(folder),
            verbose=1,
        )

    def restore(self, model: BaseAlgorithm) -> tuple[BaseAlgorithm, VecNormalize]:
        env = VecNormalize.load(str(self.folder / "statistics.pkl"), make_vec_env(WithoutVelocities, 1))
        return type(model).load(self.folder / "best_model.zip", device="cpu"), env


class SaveStatistics(BaseCallback):
    """Keeps the observations' statistics beside the best model."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def _on_step(self) -> bool:
        env = self.model.get_vec_normalize_env()
        assert env is not None
        env.save(str(self.file))
        return True


class StopWhenSolved(BaseCallback):
    """Ends training when an evaluation reaches 475 points, which is what CartPole-v1 counts as solved."""

    parent: BestModel

    def _on_step(self) -> bool:
        self.parent.curve.append((self.num_timesteps, float(self.parent.last_mean_reward)))
        return self.parent.last_mean_reward < SOLVED


def evaluate(model: BaseAlgorithm, trained_in: VecNormalize, episodes: int, seed: int = 1000) -> tuple[float, float]:
    """Mean and standard deviation of the return of greedy episodes, on seeds that training has not seen."""
    env = VecNormalize(make_vec_env(WithoutVelocities, 10, seed=seed), training=False, norm_reward=False)
    env.obs_rms = trained_in.obs_rms
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=episodes)
    return float(mean), float(deviation)  # type: ignore[arg-type]  (lists only on request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="cores, or PPO MlpPolicy (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=150_000, help="environment steps (default: %(default)s)")
    parser.add_argument("--seeds", default="0", help="comma-separated (default: %(default)s)")
    parser.add_argument("--variant", default="as they are", choices=VARIANTS, help="of the settings")
    parser.add_argument("--output", type=Path, help="a JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for method in args.methods.split(","):
        for seed in map(int, args.seeds.split(",")):
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                best = BestModel(Path(folder), seed)
                model, _ = train(method, args.steps, seed, best, args.variant)
                seconds = time.process_time() - began
                mean, deviation = evaluate(*best.restore(model), 100)
            run = {"method": method, "seed": seed, "mean": mean, "std": deviation, "cpu_seconds": seconds}
            runs.append({**run, "steps": model.num_timesteps, "evaluations": best.curve})
            print(
                f"{method:<14} seed {seed}: {mean:5.1f} ± {deviation:5.1f} after {model.num_timesteps:,} steps, "
                f"{seconds:.0f} CPU seconds",
                flush=True,
            )
    if args.output is not None:
        about = {
            "most_steps": args.steps,
            "episodes": 100,
            "versions": {"stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__},
            "machine": f"{platform.machine()}, one thread",
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({**about, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
