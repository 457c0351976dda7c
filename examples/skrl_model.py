"""skrl: an SRWM as the memory of PPO_RNN's policy and value, where skrl's own examples have a GRU.

    pip install skrl && python examples/skrl_model.py --steps 20000

Run with skrl 2.1.1, gymnasium 1.4.0, NumPy 2.4.6 and PyTorch 2.13.0. The model is skrl's GRU example but for SRWM's
state, whose width goes into the specification's "sizes", and for the episodes that end inside a sequence: they are
resets of one call, not a loop over its parts.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import torch
from gymnasium.vector import AutoresetMode
from skrl.agents.torch.ppo import PPO_RNN
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import Tensor, nn

from srwm_agents import SRWM


class Memory(nn.Module):
    """SRWM on skrl's flat batches: rows are environments while acting, and whole sequences while training."""

    def __init__(self, input_size: int, hidden: int, num_envs: int, sequence_length: int) -> None:
        super().__init__()
        self.rnn = SRWM(input_size, hidden, batch_first=True)
        self.sequence_length = sequence_length
        sizes = [(1, num_envs, self.rnn.state_size)]  # a GRU's would be (num_layers, num_envs, hidden)
        self.specification = {"rnn": {"sequence_length": sequence_length, "sizes": sizes}}

    def forward(self, inputs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """inputs["observations"] [rows, input], inputs["rnn"] of one state [1, rows, state_size] -> [rows, hidden]."""
        x, state = inputs["observations"], inputs["rnn"][0]
        length = self.sequence_length if "terminated" in inputs else 1  # skrl gives the ends while training only
        x = x.reshape(-1, length, x.shape[-1])
        state = state[:, ::length].contiguous()  # of each sequence the first
        resets = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        if "terminated" in inputs:
            ended = (inputs["terminated"] | inputs["truncated"]).reshape(-1, length)
            resets[:, 1:] = ended[:, :-1]
        out, state = self.rnn(x, state, resets)
        return out.flatten(0, 1), {"rnn": [state]}


class Policy(CategoricalMixin, Model):
    def __init__(self, env: Any, hidden: int, sequence_length: int) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        CategoricalMixin.__init__(self)
        self.memory = Memory(self.num_observations, hidden, env.num_envs, sequence_length)
        self.head = nn.Linear(hidden, self.num_actions)

    def get_specification(self) -> dict[str, Any]:
        return self.memory.specification

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        out, state = self.memory(inputs)
        return self.head(out), state


class Value(DeterministicMixin, Model):
    def __init__(self, env: Any, hidden: int, sequence_length: int) -> None:
        Model.__init__(self, observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        DeterministicMixin.__init__(self)
        self.memory = Memory(self.num_observations, hidden, env.num_envs, sequence_length)
        self.head = nn.Linear(hidden, 1)

    def get_specification(self) -> dict[str, Any]:
        return self.memory.specification

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        out, state = self.memory(inputs)
        return self.head(out), state


class Agent(PPO_RNN):
    """skrl 2.1.1 makes one dictionary of the states before and after a step, and so stores a policy's state one step
    late, whatever its memory is; two dictionaries store the one that the policy acted with."""

    def record_transition(self, **transition: Any) -> None:
        super().record_transition(**transition)
        self._rnn_initial_states = dict(self._rnn_initial_states)


def main(command: list[str] | None = None) -> Agent:
    parser = argparse.ArgumentParser(description="PPO_RNN with SRWM memory on CartPole-v1")
    parser.add_argument("--steps", type=int, default=20_000, help="of all environments together; default: 20000")
    parser.add_argument("--num_envs", type=int, default=8, help="environments; default: 8")
    parser.add_argument("--rollout", type=int, default=64, help="steps of a rollout; default: 64")
    parser.add_argument("--sequence_length", type=int, default=32, help="of the training's sequences; default: 32")
    args = parser.parse_args(command)

    options = {"autoreset_mode": AutoresetMode.SAME_STEP}
    env = wrap_env(gymnasium.make_vec("CartPole-v1", args.num_envs, vectorization_mode="sync", vector_kwargs=options))
    memory = RandomMemory(memory_size=args.rollout, num_envs=env.num_envs, device=env.device)
    models = {
        "policy": Policy(env, 32, args.sequence_length).to(env.device),
        "value": Value(env, 32, args.sequence_length).to(env.device),
    }
    settings = {
        "rollouts": args.rollout,
        "mini_batches": 2,
        "rewards_shaper": lambda rewards, *_: rewards / 10,
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }
    agent = Agent(
        models=models,
        memory=memory,
        cfg=settings,
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
    )
    trainer = {"timesteps": args.steps // args.num_envs, "headless": True, "close_environment_at_exit": False}
    SequentialTrainer(env=env, agents=agent, cfg=trainer).train()
    env.close()
    return agent


if __name__ == "__main__":
    main()
