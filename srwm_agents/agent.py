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
from srwm_agents.graphs import Graphed
from srwm_agents.portable import AgentError, config_from_json, read_portable, write_portable
from srwm_agents.settings import check_types
from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.distributions import make_distribution
from srwm_agents.spaces.entries import MOST_CATEGORIES, Entry

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
    """Size of the discrete action space; with ``actions`` the number of parameters of the policy's distribution."""
    image_shape: tuple[int, ...] = (3, 64, 64)
    """(C, H, W) of the entry "obs"; () where that is no image, or is not there."""
    extras: dict[str, int] = field(default_factory=lambda: {"last_reward": 1})
    """Observation entries of numbers and their widths, in the order in which they are joined."""
    images: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Entries beside "obs" that are images, and their shapes (C, H, W)."""
    categories: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Entries of whole numbers [K] that the network gets one-hot, and the K numbers of values."""
    vector_mlp_layers: tuple[int, ...] = ()
    """Fully connected layers for numbers and categories, before they are joined with the images' features."""
    actions: dict[str, Any] = field(default_factory=dict)
    """An :class:`srwm_agents.spaces.actions.ActionSpec` as JSON; empty: one whole number below ``num_actions``."""
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
    """What it was trained on: games, distribution_mode, num_levels, start_level; or env and env_kwargs."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained, for the record: experiment, frames, …"""

    def __post_init__(self) -> None:
        check_types(self)
        sizes = {"num_actions": (self.num_actions,), "image_shape": self.image_shape}
        sizes |= {"extras": tuple(self.extras.values()), **{f"running[{k!r}]": v for k, v in self.running.items()}}
        sizes |= {
            name: getattr(self, name) for name in ("encoder_mlp_layers", "decoder_mlp_layers", "vector_mlp_layers")
        }
        sizes |= {f"images[{k!r}]": v for k, v in self.images.items()}
        sizes |= {f"categories[{k!r}]": v for k, v in self.categories.items()}
        for name, values in sizes.items():
            if values and min(values) < 1:
                raise ValueError(f"{name} has {min(values)}, expected at least 1")
        if (largest := max((sum(values) for values in self.categories.values()), default=0)) > MOST_CATEGORIES:
            raise ValueError(f"categories has {largest:,} values in an entry, allowed: {MOST_CATEGORIES:,}")
        if self.scale == 0:
            raise ValueError("scale is 0, expected another number: images are divided by it")
        normalised = [name for name, entry in self.entries.items() if entry.kind != "categories"]
        if unknown := sorted(self.running.keys() - set(normalised)):
            raise ValueError(f"running has {unknown[0]!r}, allowed: {', '.join(normalised)}")
        if self.num_actions != self.action_spec.parameters:
            raise ValueError(f"num_actions is {self.num_actions}, but actions have {self.action_spec.parameters}")
        check_types(_Environment(**{key: value for key, value in self.environment.items() if key in _RECORDED}))

    @property
    def entries(self) -> dict[str, Entry]:
        """What the agent observes, by name, in the order in which the encoder joins it."""
        images = {**({IMAGE_KEY: self.image_shape} if self.image_shape else {}), **self.images}
        return {
            **{name: Entry("image", tuple(shape)) for name, shape in images.items()},
            **{name: Entry("vector", (width,)) for name, width in self.extras.items()},
            **{name: Entry("categories", (len(sizes),), tuple(sizes)) for name, sizes in self.categories.items()},
        }

    @property
    def action_spec(self) -> ActionSpec:
        """What the agent does."""
        return ActionSpec.from_json(self.actions) if self.actions else ActionSpec.discrete(self.num_actions)

    @classmethod
    def from_json(cls, raw: Any) -> AgentConfig:
        """Raise :class:`AgentError` for a field that is unknown, missing or of the wrong kind."""
        config = config_from_json(cls, raw, required={"core", "core_settings", "num_actions"})
        of_tuples = {name: getattr(config, name) for name in ("running", "images", "categories")}
        return replace(config, **{name: {k: tuple(v) for k, v in d.items()} for name, d in of_tuples.items()})


@dataclass(frozen=True)
class _Environment:
    """The entries of ``AgentConfig.environment`` that this package reads, and their types."""

    games: tuple[str, ...] = ()
    distribution_mode: str = ""
    num_levels: int = 0
    start_level: int = 0
    env: str = ""
    env_kwargs: dict[str, Any] = field(default_factory=dict)


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
        self.actions = config.action_spec

        def image(shape: tuple[int, ...]) -> ImageEncoder:
            return ImageEncoder(config.encoder, shape, config.encoder_mlp_layers, config.nonlinearity)

        self.encoder = ObservationEncoder(
            image(config.image_shape) if config.image_shape else None,
            config.extras,
            more_images={name: image(shape) for name, shape in config.images.items()},
            categories=config.categories,
            mlp_layers=config.vector_mlp_layers,
            nonlinearity=config.nonlinearity,
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
        self._graphs: Graphed[tuple[Tensor, Tensor]] | None = None

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
            logits [B, T, num_actions], the parameters of the policy's distributions (of real numbers: means, then
            log-deviations); values [B, T]; and the state after the last step.
        """
        batch, steps = next(observation[name] for name in self.config.entries).shape[:2]
        flat = {name: entry.flatten(0, 1) for name, entry in observation.items()}
        features = self.encoder(self.normalizer(flat)).unflatten(0, (batch, steps))
        out, state = self.core(features, state, resets)
        out = self.decoder(out)
        return self.policy_head(out), self.value_head(out).squeeze(-1), state

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, npt.NDArray[Any] | Tensor] | npt.NDArray[Any] | Tensor,
        state: Tensor | None = None,
        *,
        resets: npt.NDArray[np.bool_] | Tensor | None = None,
        deterministic: bool = True,
        generator: torch.Generator | None = None,
    ) -> tuple[npt.NDArray[Any], Tensor]:
        """Choose one action an environment.

        Args:
            observation: entries [B, …], or without B for a single environment, as ``config.entries`` has them: for
                Procgen "obs" uint8 images, and the agent's extras ("last_reward" [B, 1], …); arrays or tensors. Other
                entries are ignored. An agent that observes "obs" alone also takes that without a dict.
            state: what the last call returned; None begins fresh episodes.
            resets: bool [B], True where a new episode begins with this observation.
            deterministic: take the likeliest action; otherwise sample from the policy.
            generator: for sampling, on the agent's device; the same seed gives the same actions.

        Returns:
            the environment's actions, int64 [B] (or a scalar array), [B, K], or float32 [B, …] clipped to their range;
            and the next state [B, state_size].

        Raises:
            ValueError: an entry is missing or has another shape than the agent was trained on; a logit is NaN or
                infinite, as weights, state or observation must then be.
        """
        tensors, single = self._batch(observation)
        batch = len(next(iter(tensors.values())))
        state = self.initial_state(batch) if state is None else state
        inputs = {"observation": tensors, "state": state}
        if resets is not None:
            inputs["resets"] = torch.as_tensor(resets, device=self.device).reshape(batch, 1)
        logits, next_state = self._one_step(inputs) if self._graphs is None else self._graphs(inputs)
        finite = logits.isfinite().all(-1)
        logits = logits.masked_fill(~finite[:, None], 0)  # on a GPU, NaN in multinomial ends the process
        policy = make_distribution(self.actions, logits)
        chosen = (policy.mode() if deterministic else policy.sample(generator)).cpu().numpy()
        if not finite.all():
            raise ValueError("the agent's logits are not finite: NaN in its weights, its state or the observation")
        actions = self.actions.native(chosen)
        # A graph's next call overwrites what this one returned.
        return actions[0] if single else actions, next_state if self._graphs is None else next_state.clone()

    def use_graphs(self) -> None:
        """From now on :meth:`act` replays CUDA graphs of the network: the same numbers from one launch, not hundreds.

        For an agent on a CUDA device that acts on batches of one size, which may change now and then: a size is
        captured at its third step, and only the latest capture is kept. Weights may be changed where they lie, but not
        be moved.

        Raises:
            ValueError: the agent is not on a CUDA device.
        """
        if self.device.type != "cuda":
            raise ValueError(f"the agent is on {str(self.device)!r}, expected a CUDA device")
        self._graphs = Graphed(self._one_step, warm_up=2, most_captures=1)

    def _one_step(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits [B, num_actions] and the next state, of one step of B environments."""
        entries = {name: entry[:, None] for name, entry in inputs["observation"].items()}
        logits, _, state = self(entries, inputs["state"], inputs.get("resets"))
        return logits[:, 0], state

    def _batch(
        self, observation: Mapping[str, npt.NDArray[Any] | Tensor] | npt.NDArray[Any] | Tensor
    ) -> tuple[dict[str, Tensor], bool]:
        """The agent's entries [B, …] on its device, and whether they are of a single environment, without B."""
        entries = self.config.entries
        wanted = ", ".join(entries)
        if not isinstance(observation, Mapping):
            if list(entries) != [IMAGE_KEY]:
                raise ValueError(f"observation is a {type(observation).__name__}, expected a dict with {wanted}")
            observation = {IMAGE_KEY: observation}
            if entries[IMAGE_KEY].shape == (1,):  # as environments give an index: a scalar, or one an environment
                index = torch.as_tensor(observation[IMAGE_KEY])
                observation = {IMAGE_KEY: index.reshape(-1, 1) if index.shape[-1:] != (1,) else index}
                if index.dim() == 0:
                    observation = {IMAGE_KEY: index.reshape(1)}
        tensors = {}
        for name in entries:
            if name not in observation:
                raise ValueError(f"observation has no entry {name!r}, expected: {wanted}")
            tensors[name] = torch.as_tensor(observation[name], device=self.device)
        first = next(iter(entries))
        single = tensors[first].dim() == len(entries[first].shape)
        if single:
            tensors = {name: tensor[None] for name, tensor in tensors.items()}
        batch = len(tensors[first])
        for name, entry in entries.items():
            if tuple(tensors[name].shape) != (batch, *entry.shape):
                shape = [batch, *entry.shape]
                raise ValueError(f"entry {name!r} has shape {list(tensors[name].shape)}, expected {shape}")
        return tensors, single

    def predict(
        self,
        observation: Mapping[str, npt.NDArray[Any]] | npt.NDArray[Any],
        state: tuple[npt.NDArray[np.float32], ...] | None = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[np.float32], ...]]:
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
