"""The portable agent as TorchRL's actor and critic with shared weights."""

from __future__ import annotations

from typing import Any

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import ActorValueOperator, ProbabilisticActor, ValueOperator

from srwm_agents.agent import Agent
from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.integrations.torchrl.module import SRWMModule


class _Features(nn.Module):
    """Normaliser and encoder of an agent over any batch dimensions."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.normalizer, self.encoder = agent.normalizer, agent.encoder
        self.image_shape = agent.config.image_shape
        self.names = (IMAGE_KEY, *agent.config.extras)
        self.shapes = (agent.config.image_shape, *((width,) for width in agent.config.extras.values()))

    def forward(self, *entries: Tensor) -> Tensor:
        batch = entries[0].shape[: -len(self.image_shape)]
        for name, entry, shape in zip(self.names, entries, self.shapes, strict=True):
            if tuple(entry.shape) != (*batch, *shape):
                raise ValueError(f"entry {name!r} has shape {list(entry.shape)}, expected {[*batch, *shape]}")
        flat = {
            name: entry.reshape(-1, *shape) for name, entry, shape in zip(self.names, entries, self.shapes, strict=True)
        }
        return self.encoder(self.normalizer(flat)).reshape(*batch, -1)


def make_actor_critic(agent: Agent) -> ActorValueOperator:
    """Wrap an agent, new or from ``load_agent``, in TorchRL modules that share its weights.

    ``get_policy_operator()`` reads the observation ("obs", "last_reward", …), "recurrent_state" and "is_init", and
    writes "logits", "action", "action_log_prob" and the next state; ``get_value_operator()`` writes "state_value".
    The environment needs an ``InitTracker`` and the primer: ``get_primers_from_module(policy)``.
    """
    features = _Features(agent)
    encoder: Any = TensorDictModule(features, in_keys=list(features.names), out_keys=["embed"])
    memory: Any = SRWMModule(agent.core)
    trunk = TensorDictSequential(encoder, memory)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(agent.decoder, agent.policy_head), in_keys=["embed"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(agent.decoder, agent.value_head), in_keys=["embed"])
    return ActorValueOperator(trunk, actor, critic)
