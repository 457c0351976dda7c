"""RLlib (new API stack): an RLModule with an SRWM where RLlib's own example has an LSTM.

    pip install "ray[rllib]" && python examples/rllib_module.py --iterations 5

Run with ray[rllib] 2.60.0, gymnasium 1.2.2 and PyTorch 2.13.0. RLlib cuts episodes into sequences of ``max_seq_len``
and carries the state itself, so that no resets are needed.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from srwm_agents import SRWM


class SRWMModule(TorchRLModule, ValueFunctionAPI):
    """Vectors in, logits and values out; ``model_config["memory"]`` has SRWM's arguments."""

    def setup(self) -> None:
        self.memory = SRWM(self.observation_space.shape[0], batch_first=True, **self.model_config["memory"])
        self.policy_head = nn.Linear(self.memory.hidden_size, int(self.action_space.n))
        self.value_head = nn.Linear(self.memory.hidden_size, 1)

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """Of one environment; RLlib batches it."""
        return {"memory": np.zeros(self.memory.state_size, np.float32)}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        out, state = self._remember(batch)
        return {
            Columns.ACTION_DIST_INPUTS: self.policy_head(out),
            Columns.STATE_OUT: {"memory": state},
            Columns.EMBEDDINGS: out,
        }

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        out = self._remember(batch)[0] if embeddings is None else embeddings
        return self.value_head(out)[..., 0]

    def _remember(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """RLlib's observations [B, T, input] and state [B, state_size] -> out [B, T, hidden], state [B, state_size]."""
        out, state = self.memory(batch[Columns.OBS], batch[Columns.STATE_IN]["memory"][None])
        return out, state[0]


def main(command: list[str] | None = None) -> list[float]:
    """Train; returns the mean return of the episodes of each iteration."""
    parser = argparse.ArgumentParser(description="PPO with SRWM memory on CartPole-v1")
    parser.add_argument("--iterations", type=int, default=5, help="of training; default: 5")
    parser.add_argument("--batch", type=int, default=2048, help="steps of an iteration; default: 2048")
    args = parser.parse_args(command)

    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True)
    spec = RLModuleSpec(module_class=SRWMModule, model_config={"memory": {"hidden_size": 32}, "max_seq_len": 32})
    config = (
        PPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .rl_module(rl_module_spec=spec)
        .training(train_batch_size_per_learner=args.batch, minibatch_size=args.batch // 4, num_epochs=4, lr=1e-3)
    )
    algorithm = config.build_algo()
    returns = []
    for iteration in range(args.iterations):
        returns.append(algorithm.train()["env_runners"]["episode_return_mean"])
        print(f"iteration {iteration + 1}: mean return {returns[-1]:.1f}", flush=True)
    algorithm.stop()
    ray.shutdown()
    return returns


if __name__ == "__main__":
    main()
