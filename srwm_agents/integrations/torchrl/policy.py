"""The portable agent as TorchRL's actor and critic with shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.modules import ActorValueOperator, ProbabilisticActor, ValueOperator

from srwm_agents.agent import Agent
from srwm_agents.integrations.torchrl.module import SRWMModule
from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.distributions import Gaussian


class _Features(nn.Module):
    """Normaliser and encoder of an agent over any batch dimensions."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.normalizer, self.encoder = agent.normalizer, agent.encoder
        self.shapes = {name: entry.shape for name, entry in agent.config.entries.items()}
        self.names = tuple(self.shapes)

    def forward(self, *entries: Tensor) -> Tensor:
        first = self.shapes[self.names[0]]
        batch = entries[0].shape[: entries[0].dim() - len(first)]
        for (name, shape), entry in zip(self.shapes.items(), entries, strict=True):
            if tuple(entry.shape) != (*batch, *shape):
                raise ValueError(f"entry {name!r} has shape {list(entry.shape)}, expected {[*batch, *shape]}")
        flat = {
            name: entry.reshape(-1, *shape) for (name, shape), entry in zip(self.shapes.items(), entries, strict=True)
        }
        return self.encoder(self.normalizer(flat)).reshape(*batch, -1)


class WholeNumbers(torch.distributions.Distribution):
    """Several independent whole numbers, from the logits of all: a ``MultiDiscrete`` action of K numbers from 0."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore[reportIncompatibleMethodOverride]

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]) -> None:
        """logits [*batch, sum(sizes)]."""
        self._parts = [torch.distributions.Categorical(logits=part) for part in logits.split(sizes, dim=-1)]
        super().__init__(logits.shape[:-1], torch.Size([len(sizes)]), validate_args=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.stack([part.sample(torch.Size(sample_shape)) for part in self._parts], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        columns = value.unbind(-1)
        return torch.stack([part.log_prob(column) for part, column in zip(self._parts, columns, strict=True)]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self._parts]).sum(0)

    @property
    def mode(self) -> Tensor:
        return torch.stack([part.probs.argmax(-1) for part in self._parts], dim=-1)

    @property
    def deterministic_sample(self) -> Tensor:
        """TorchRL's name for the mode."""
        return self.mode


class RealNumbers(torch.distributions.Independent):
    """A Gaussian in the units of a ``Box`` action, from the agent's parameters; the environment has to clip it."""

    def __init__(self, logits: Tensor, middle: Sequence[float], half: Sequence[float]) -> None:
        """logits [*batch, 2 K]: means and log-deviations in units of half of the action's range."""
        policy = Gaussian(logits)
        centre, unit = logits.new_tensor(middle), logits.new_tensor(half)
        normal = torch.distributions.Normal(centre + unit * policy.mean, unit * policy.log_deviation.exp())
        super().__init__(normal, 1, validate_args=False)

    @property
    def deterministic_sample(self) -> Tensor:
        """TorchRL's name for the mode."""
        return self.mean


def make_actor_critic(agent: Agent) -> ActorValueOperator:
    """Wrap an agent, new or from ``load_agent``, in TorchRL modules that share its weights.

    ``get_policy_operator()`` reads the observation ("obs", "last_reward", …), "recurrent_state" and "is_init", and
    writes "logits", "action", "action_log_prob" and the next state; ``get_value_operator()`` writes "state_value".
    The environment needs an ``InitTracker`` and the primer: ``get_primers_from_module(policy)``.

    Raises:
        ValueError: an action that is not a flat one, or does not count from 0: TorchRL's environments have no such.
    """
    features = _Features(agent)
    encoder: Any = TensorDictModule(features, in_keys=list(features.names), out_keys=["embed"])
    memory: Any = SRWMModule(agent.core)
    trunk = TensorDictSequential(encoder, memory)
    kind, options = _distribution(agent.actions)
    actor = ProbabilisticActor(
        TensorDictModule(nn.Sequential(agent.decoder, agent.policy_head), in_keys=["embed"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=kind,
        distribution_kwargs=options,
        return_log_prob=True,
    )
    critic = ValueOperator(nn.Sequential(agent.decoder, agent.value_head), in_keys=["embed"])
    return ActorValueOperator(trunk, actor, critic)


def _distribution(actions: ActionSpec) -> tuple[type[Any], dict[str, Any]]:
    """The class of the policy's distributions, and its arguments beside the logits."""
    if len(actions.shape) > 1 or any(actions.start):
        raise ValueError(f"actions are {actions.to_json()}, expected a flat space that counts from 0")
    if actions.continuous:
        middle, half = actions.ranges()
        return RealNumbers, {"middle": middle.tolist(), "half": half.tolist()}
    if actions.kind == "discrete":
        return torch.distributions.Categorical, {}
    return WholeNumbers, {"sizes": actions.sizes}
