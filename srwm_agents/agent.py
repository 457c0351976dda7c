"""The portable agent: encoder, recurrent core and heads, saved in one file that any program with PyTorch can read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from srwm_agents.cores import make_core
from srwm_agents.encoders import ACTIVATIONS, IMAGE_KEY, ImageEncoder, ObservationEncoder, ObservationNormalizer
from srwm_agents.portable import AgentError, config_from_json, read_portable, write_portable
from srwm_agents.settings import check_types

__all__ = ["Agent", "AgentConfig", "AgentError", "load_agent", "save_agent"]

KIND = "agent"


@dataclass(frozen=True)
class AgentConfig:
    """Everything that :class:`Agent` is made from, and the record of its training; saved with the weights."""

    core: str
    """Name of the core, a key of ``srwm_agents.cores.CORES``."""
    core_settings: dict[str, Any]
    """Keyword arguments of ``make_core`` except input_size."""
    num_actions: int
    """Size of the discrete action space."""
    image_shape: tuple[int, ...] = (3, 64, 64)
    """(C, H, W) of the entry "obs"."""
    extras: dict[str, int] = field(default_factory=lambda: {"last_reward": 1})
    """Other observation entries and their widths, in the order in which the core gets them."""
    encoder: str = "resnet_impala"
    """Name of the image encoder, a key of ``srwm_agents.encoders.ENCODERS``."""
    encoder_mlp_layers: tuple[int, ...] = (256,)
    """Fully connected layers after the convolutions."""
    nonlinearity: str = "relu"
    """Of encoder and decoder."""
    decoder_mlp_layers: tuple[int, ...] = ()
    """Fully connected layers between core and heads."""
    subtract_mean: float = 0.0
    """Subtracted from the image before anything else."""
    scale: float = 1.0
    """The image is divided by this before anything else."""
    running: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Observation entries that running statistics normalise, and their shapes."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What it was trained on: games, distribution_mode, num_levels, start_level."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained, for the record: experiment, frames, …"""

    def __post_init__(self) -> None:
        check_types(self)
        sizes = {"num_actions": (self.num_actions,), "image_shape": self.image_shape}
        sizes |= {"extras": tuple(self.extras.values()), **{f"running[{k!r}]": v for k, v in self.running.items()}}
        sizes |= {name: getattr(self, name) for name in ("encoder_mlp_layers", "decoder_mlp_layers")}
        for name, values in sizes.items():
            if values and min(values) < 1:
                raise ValueError(f"{name} has {min(values)}, expected at least 1")
        if self.scale == 0:
            raise ValueError("scale is 0, expected another number: images are divided by it")
        if unknown := sorted(self.running.keys() - {IMAGE_KEY, *self.extras}):
            raise ValueError(f"running has {unknown[0]!r}, allowed: {', '.join((IMAGE_KEY, *self.extras))}")
        check_types(_Environment(**{key: value for key, value in self.environment.items() if key in _RECORDED}))

    @classmethod
    def from_json(cls, raw: Any) -> AgentConfig:
        """Raise :class:`AgentError` for a field that is unknown, missing or of the wrong kind."""
        config = config_from_json(cls, raw, required={"core", "core_settings", "num_actions"})
        return replace(config, running={key: tuple(shape) for key, shape in config.running.items()})


@dataclass(frozen=True)
class _Environment:
    """The entries of ``AgentConfig.environment`` that this package reads, and their types."""

    games: tuple[str, ...] = ()
    distribution_mode: str = ""
    num_levels: int = 0
    start_level: int = 0


_RECORDED = {entry.name for entry in fields(_Environment)}


class Agent(nn.Module):
    """An actor-critic with memory that needs nothing but PyTorch.

    ``forward`` runs over time for whoever wants logits and values; ``act`` is what a running agent needs.
    """

    def __init__(self, config: AgentConfig) -> None:
        """Make an agent with fresh weights; ValueError for a setting out of range."""
        super().__init__()
        self.config = config
        self.normalizer = ObservationNormalizer(config.subtract_mean, config.scale, config.running)
        self.encoder = ObservationEncoder(
            ImageEncoder(config.encoder, config.image_shape, config.encoder_mlp_layers, config.nonlinearity),
            config.extras,
        )
        self.core = make_core(config.core, input_size=self.encoder.output_size, **config.core_settings)
        size = self.core.output_size
        layers: list[nn.Module] = []
        for width in config.decoder_mlp_layers:
            layers += [nn.Linear(size, width), ACTIVATIONS[config.nonlinearity]()]
            size = width
        self.decoder = nn.Sequential(*layers)
        self.policy_head = nn.Linear(size, config.num_actions)
        self.value_head = nn.Linear(size, 1)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.value_head.weight.device

    def initial_state(self, batch_size: int) -> Tensor:
        """Zeros [batch_size, state_size]: fresh episodes."""
        return self.core.initial_state(batch_size)

    def forward(
        self, observation: Mapping[str, Tensor], state: Tensor, resets: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run over time: entries [B, T, …], state [B, state_size], resets bool [B, T].

        Returns:
            logits [B, T, num_actions], values [B, T], and the state after the last step.
        """
        batch, steps = observation[IMAGE_KEY].shape[:2]
        flat = {name: entry.flatten(0, 1) for name, entry in observation.items()}
        features = self.encoder(self.normalizer(flat)).unflatten(0, (batch, steps))
        out, state = self.core(features, state, resets)
        out = self.decoder(out)
        return self.policy_head(out), self.value_head(out).squeeze(-1), state

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, npt.NDArray[Any] | Tensor],
        state: Tensor | None = None,
        *,
        resets: npt.NDArray[np.bool_] | Tensor | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Choose one action an environment.

        Args:
            observation: entries [B, …], or without B for a single environment: "obs" uint8 images, and the agent's
                extras ("last_reward" [B, 1], …); arrays or tensors. Other entries are ignored.
            state: what the last call returned; None begins fresh episodes.
            resets: bool [B], True where a new episode begins with this observation.
            deterministic: take the likeliest action; otherwise sample from the policy.
            generator: for sampling, on the agent's device; the same seed gives the same actions.

        Returns:
            actions int64 [B] (or a scalar array) and the next state [B, state_size].

        Raises:
            ValueError: an entry is missing or has another shape than the agent was trained on; a logit is NaN or
                infinite, as weights, state or observation must then be.
        """
        image_shape = self.config.image_shape
        for name in (IMAGE_KEY, *self.config.extras):
            if name not in observation:
                wanted = ", ".join((IMAGE_KEY, *self.config.extras))
                raise ValueError(f"observation has no entry {name!r}, expected: {wanted}")
        tensors = {
            name: torch.as_tensor(observation[name], device=self.device) for name in (IMAGE_KEY, *self.config.extras)
        }
        single = tensors[IMAGE_KEY].dim() == len(image_shape)
        if single:
            tensors = {name: entry[None] for name, entry in tensors.items()}
        batch = tensors[IMAGE_KEY].shape[0]
        shapes = {IMAGE_KEY: image_shape, **{name: (width,) for name, width in self.config.extras.items()}}
        for name, shape in shapes.items():
            if tuple(tensors[name].shape) != (batch, *shape):
                raise ValueError(f"entry {name!r} has shape {list(tensors[name].shape)}, expected {[batch, *shape]}")
        state = self.initial_state(batch) if state is None else state
        resets = None if resets is None else torch.as_tensor(resets, device=self.device).reshape(batch, 1)
        logits, _, next_state = self({name: entry[:, None] for name, entry in tensors.items()}, state, resets)
        logits = logits[:, 0]
        finite = logits.isfinite().all(-1)
        logits = logits.masked_fill(~finite[:, None], 0)  # on a GPU, NaN in multinomial ends the process
        if deterministic:
            actions = logits.argmax(-1)
        else:
            actions = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
        chosen = torch.where(finite, actions, -1).cpu().numpy()
        if chosen.min(initial=0) < 0:
            raise ValueError("the agent's logits are not finite: NaN in its weights, its state or the observation")
        return chosen[0] if single else chosen, next_state

    def predict(
        self,
        observation: Mapping[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[np.float32], ...] | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], tuple[npt.NDArray[np.float32], ...]]:
        """:meth:`act` as Stable-Baselines3 spells it, so that its ``evaluate_policy`` and others take this agent.

        Raises:
            ValueError: as :meth:`act`; a state that is not what the last call returned.
        """
        if state is not None and not (isinstance(state, tuple) and len(state) == 1):
            raise ValueError(f"state is a {type(state).__name__}, expected the tuple that predict returned")
        memory = None if state is None else torch.as_tensor(state[0], device=self.device)
        actions, memory = self.act(observation, memory, resets=episode_start, deterministic=deterministic)
        return actions, (memory.cpu().numpy(),)


def save_agent(agent: Agent, path: str | os.PathLike[str], *, half: bool = False) -> Path:
    """Write an agent into the folder ``path``, as ``model.safetensors``, which holds weights and configuration.

    The file is replaced by one ``os.replace``: whenever this is killed, :func:`load_agent` finds the old agent or the
    new one, whole. ``config.json`` beside it is a copy of the configuration for people, which is not read.

    Args:
        agent: it is not changed.
        path: the folder; it is made if it is missing.
        half: write the weights as float16, in half the space.

    Returns:
        The folder.

    Raises:
        ValueError: a weight that float16 cannot hold.
        OSError: the folder cannot be written; the agent that was there stays.
    """
    return write_portable(agent, KIND, asdict(agent.config), path, half=half)


def load_agent(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Agent:
    """Read an agent that :func:`save_agent` wrote, in evaluation mode.

    Only JSON and safetensors are read; nothing in the files is ever executed.

    Args:
        path: the agent's folder, or the ``model.safetensors`` in it.
        device: where the agent shall act.

    Raises:
        AgentError: a missing, truncated, altered or unknown file; nothing is loaded then.
    """
    return read_portable(path, KIND, lambda raw: Agent(AgentConfig.from_json(raw))).eval().to(device)
