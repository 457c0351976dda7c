"""Collectors: environments, acting agent, and rollouts as compact NumPy arrays."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.integrations.torchrl.environment import make_environment
from srwm_agents.integrations.torchrl.module import IS_INIT

Arrays = dict[str, Any]


@dataclass(frozen=True)
class CollectorSettings:
    """Settings of a collector, sent once when it starts."""

    agent: dict[str, Any]
    """An :class:`AgentConfig` as a dict."""
    environment: dict[str, Any]
    """Keyword arguments of ``make_environment``."""
    rollout: int
    """Steps a rollout."""
    threads: int
    """PyTorch's CPU threads."""
    device: str
    """Where the agent acts: "cpu", or "cuda" for the GPU that Ray assigns."""
    seed: int
    """Of actions and levels."""


@dataclass(frozen=True)
class CollectedRollout:
    """One rollout of all environments of a collector, as NumPy arrays, which Ray shares without a copy."""

    arrays: Arrays
    """Input of :func:`srwm_agents.integrations.sample_factory.standalone.trajectories`, [N, …]: observations of T + 1
    steps, the recurrent state before the first step, everything else of T steps."""
    episodes: tuple[npt.NDArray[Any], ...]
    """game_index, return and length of the episodes that ended, an array each."""
    version: int
    """Number of the learner's update that the weights are from."""
    place: str
    """Host name, address and Ray node, for messages."""


class ActingAgent(TensorDictModuleBase):
    """A collector's policy that holds its recurrent state itself, not in the tensordict.

    A state in the tensordict, as with ``SRWMModule``, is stored at each step: 53 KB a frame for the default SRWM,
    against 12 KB of image. Here the policy holds one state an environment, and a rollout only the state before its
    first step, from which the learner recomputes the others.
    """

    def __init__(self, config: AgentConfig, device: torch.device, seed: int) -> None:
        super().__init__()
        self.agent = Agent(config).eval().to(device)
        self.names = (IMAGE_KEY, *config.extras)
        self.in_keys = [*self.names, IS_INIT]
        self.out_keys = ["action", "log_prob_actions", "action_logits", "values"]
        self.state: Tensor | None = None
        """[N, state_size], state after the last step; None before the first."""
        self.generator = torch.Generator(device).manual_seed(seed)

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        device = self.agent.device
        entries: dict[str, Any] = {name: tensordict.get(name) for name in self.names}
        observation = {name: entry.to(device)[:, None] for name, entry in entries.items()}
        is_init: Any = tensordict.get(IS_INIT)
        if self.state is None:
            self.state = self.agent.initial_state(len(is_init))
        logits, values, self.state = self.agent(observation, self.state, is_init.to(device))
        log_probs = logits[:, 0].log_softmax(-1)
        action = torch.multinomial(log_probs.exp(), 1, generator=self.generator)
        tensordict.set("action", action[:, 0].cpu())
        tensordict.set("log_prob_actions", log_probs.gather(1, action)[:, 0].cpu())
        tensordict.set("action_logits", logits[:, 0].cpu())
        tensordict.set("values", values[:, 0].cpu())
        return tensordict


class RolloutCollector(Collector):
    """TorchRL's collector with :meth:`play` as a remote method."""

    def __repr__(self) -> str:
        return "collector"  # Ray prefixes each printed line with this; TorchRL's has fifty lines

    def __bool__(self) -> bool:
        # An endless collector's length is a float, for which bool() raises. Ray takes an actor's bool() when it reports
        # an exception, so without this the actor would die and the exception would be lost.
        return True

    def play(self, weights: dict[str, npt.NDArray[Any]], version: int) -> CollectedRollout:
        """Collect one rollout with the learner's ``weights`` of update ``version``."""
        policy: Any = self.policy
        policy.agent.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
        before = None if policy.state is None else policy.state.cpu().clone()
        data: Any = self.next()
        if data is None:
            raise RuntimeError("the collector was stopped")
        return CollectedRollout(
            _arrays(data, before, policy, version),
            _finished_episodes(data),
            version,
            _place(),
        )


def _place() -> str:
    if not ray.is_initialized():
        return socket.gethostname()
    node = ray.get_runtime_context().get_node_id()
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, node {node[:8]})"


def _arrays(data: TensorDictBase, before: Tensor | None, policy: ActingAgent, version: int) -> Arrays:
    """Convert TorchRL's [N, T] tensordict to the arrays of a :class:`CollectedRollout`."""
    following: Any = data.get("next")
    observed = {
        name: torch.cat([_entry(data, name), _entry(following, name)[:, -1:]], dim=1)
        for name in (*policy.names, "game_index", "exploring")
        if _entry(data, name) is not None
    }
    observed["game_index"] = observed["game_index"].float()
    first = _entry(data, IS_INIT)[:, 0]
    size = policy.agent.core.state_size
    state = torch.zeros(len(first), max(1, size))  # Sample Factory's states have at least one column
    if before is not None and size:
        state = torch.where(first, 0, before)
    tensors = {
        "rnn_states": state[:, None],
        "actions": _entry(data, "action"),
        "rewards": _entry(following, "reward").squeeze(-1),
        "dones": _entry(following, "done").squeeze(-1),
        "policy_version": torch.full(data.batch_size, version, dtype=torch.int32),
        **{name: _entry(data, name) for name in ("log_prob_actions", "action_logits", "values")},
    }
    return {
        "obs": {name: entry.numpy() for name, entry in observed.items()},
        **{name: entry.contiguous().numpy() for name, entry in tensors.items()},
    }


def _entry(data: Any, name: str) -> Tensor:
    return data.get(name)


def _finished_episodes(data: TensorDictBase) -> tuple[npt.NDArray[Any], ...]:
    following: Any = data.get("next")
    done = _entry(following, "done")
    return tuple(_entry(following, name)[done].numpy() for name in ("game_index", "episode_return", "episode_length"))


def make_collector_environment(settings: CollectorSettings) -> EnvBase:
    """Make the environments of one collector, and set its number of PyTorch threads."""
    torch.set_num_threads(settings.threads)
    return make_environment(**settings.environment)


def make_acting_agent(settings: CollectorSettings) -> ActingAgent:
    """Make the policy of one collector; :meth:`RolloutCollector.play` loads its weights."""
    torch.manual_seed(settings.seed)
    config = AgentConfig.from_json(settings.agent)
    return ActingAgent(config, torch.device(settings.device), settings.seed)


def concatenate(parts: list[Arrays]) -> Arrays:
    """Concatenate rollouts along the batch dimension."""
    return {
        name: concatenate([part[name] for part in parts])
        if isinstance(entry, dict)
        else np.concatenate([part[name] for part in parts])
        for name, entry in parts[0].items()
    }


def rows(arrays: Arrays, start: int, stop: int) -> Arrays:
    """Slice a rollout along the batch dimension."""
    return {
        name: rows(entry, start, stop) if isinstance(entry, dict) else entry[start:stop]
        for name, entry in arrays.items()
    }


def as_tensors(arrays: Arrays) -> dict[str, Any]:
    """Convert to tensors that share the arrays' memory; arrays from Ray are read-only and must be copied before."""
    return {
        name: as_tensors(entry) if isinstance(entry, dict) else torch.from_numpy(entry)
        for name, entry in arrays.items()
    }
