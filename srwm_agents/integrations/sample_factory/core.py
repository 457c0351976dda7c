"""The cores in a Sample Factory program of one's own: their flags, the sizes that follow from them, their factory.

Nothing here needs more than Sample Factory: encoder, environment, actor-critic and learner are the program's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from sample_factory.algo.utils.context import global_model_factory
from sample_factory.model.core import ModelCore
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from srwm_agents.cores import CORES, CoreConfig, make_core
from srwm_agents.cores.config import core_setting_names, core_settings_of
from srwm_agents.experiment_folders import ExperimentError, experiment_path
from srwm_agents.settings import add_dataclass_flags

SIZE_FLAGS = ("rnn_size", "rnn_type", "rnn_num_layers")
"""Flags of Sample Factory's that follow from the core."""

_FROM_ROLLOUT = ("rollout_length",)
"""Settings of a core that are Sample Factory's ``--rollout``."""

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A setting that cannot work; the message names it, its value and what is allowed."""


class SampleFactoryCore(ModelCore):
    """A core of the registry behind Sample Factory's interface.

    When acting, Sample Factory passes [B, features]; its own learner passes a ``PackedSequence`` cut at episode ends,
    with one state a segment in the order before sorting; our V-trace learner calls :meth:`sequence`.
    """

    def __init__(self, cfg: Any, input_size: int) -> None:
        super().__init__(cfg)
        self.core = make_core(cfg.core, input_size=input_size, backend=cfg.backend, **core_settings(cfg))
        self.core_output_size = self.core.output_size

    def apply(self, fn: Any) -> SampleFactoryCore:
        """Keep the core's own initialisation: Sample Factory would re-initialise linear layers and zero every bias."""
        if getattr(fn, "__name__", "") == "initialize_weights":
            return self
        return super().apply(fn)

    def forward(
        self, head_output: Tensor | PackedSequence, rnn_states: Tensor
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        if isinstance(head_output, PackedSequence):
            return self._packed(head_output, rnn_states)
        out, state = self.sequence(head_output[:, None], rnn_states, None)
        return out[:, 0], state

    def sequence(self, x: Tensor, rnn_states: Tensor, resets: Tensor | None) -> tuple[Tensor, Tensor]:
        """Run the core over time, from x [B, T, features] to [B, T, out] and the final state.

        Sample Factory's states have at least one column, those of a core without memory none.
        """
        out, state = self.core(x, rnn_states[:, : self.core.state_size], resets)
        return out, state if self.core.state_size else rnn_states

    def _packed(self, packed: PackedSequence, rnn_states: Tensor) -> tuple[PackedSequence, Tensor]:
        # pad_packed_sequence restores the order of the states. Steps after a segment's end compute on padding; packing
        # again drops their outputs, and the final states of a training pass are not used.
        padded, lengths = pad_packed_sequence(packed, batch_first=True)
        out, state = self.sequence(padded, rnn_states, None)
        repacked = pack_padded_sequence(out, lengths, batch_first=True, enforce_sorted=False)
        return PackedSequence(repacked.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices), state


def core_settings(cfg: Any) -> dict[str, Any]:
    """The keyword arguments of ``make_core`` that a configuration asks for, without input_size and backend."""
    mapping = _mapping(cfg)
    settings = core_settings_of(mapping) | {"rollout_length": mapping["rollout"]}
    return {name: value for name, value in settings.items() if name != "backend"}


def buffer_settings(core: str, cfg: Any) -> dict[str, Any]:
    """The settings by which Sample Factory sizes its buffers of states: a GRU of one layer has exactly one vector.

    ``use_rnn`` is True for the feed-forward core too, whose state is empty; Sample Factory's has at least one column.

    Raises:
        ConfigError: the core's settings in ``cfg`` cannot work.
    """
    try:
        with torch.random.fork_rng(devices=[]):  # on "meta", drawing weights imports PyTorch's compiler: seconds
            size = make_core(core, input_size=1, **core_settings(cfg)).state_size
    except ValueError as error:
        raise ConfigError(f"--core={core}: {error}") from error
    return {"use_rnn": True, "rnn_type": "gru", "rnn_num_layers": 1, "rnn_size": max(1, size)}


def check_no_size_flags(given: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Refuse sizes that follow from the core.

    Args:
        given: the flags that the user wrote.
        names: the core's settings to use in their place, for the message.

    Raises:
        ConfigError: one of :data:`SIZE_FLAGS` was given.
    """
    for name in SIZE_FLAGS:
        if name in given:
            instead = ", ".join(f"--{setting}" for setting in names)
            raise ConfigError(f"--{name} follows from the core and cannot be set; use --core, {instead}")


def chosen_core(core: str, use_rnn: bool, core_was_given: bool) -> str:
    """The core that is asked for: ``--use_rnn=False`` is Sample Factory's way to ask for the feed-forward one.

    Raises:
        ConfigError: another core was a flag beside it.
    """
    if use_rnn or core == "feedforward":
        return core
    if core_was_given:
        raise ConfigError(f"--use_rnn=False means --core=feedforward, but --core is {core!r}")
    return "feedforward"


def add_core_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--core`` (default "srwm") and a flag for each setting of :class:`srwm_agents.cores.CoreConfig`.

    ``rollout_length`` has none: it is Sample Factory's ``--rollout``. Defaults of your own are set as for any flag, by
    ``parser.set_defaults(core="lstm", hidden_size=32)``.

    Args:
        parser: the one that Sample Factory's ``parse_sf_args`` returns, before ``parse_full_cfg`` reads it.

    Raises:
        argparse.ArgumentError: the parser has a flag of one of these names already.
    """
    group = parser.add_argument_group("memory (srwm-agents)")
    group.add_argument("--core", default="srwm", choices=list(CORES), help="Memory of the agent")
    add_dataclass_flags(group, CoreConfig, names=core_setting_names(exclude=_FROM_ROLLOUT))


def finish_core_config(cfg: Config) -> Config:
    """Check a configuration's core, and set what Sample Factory sizes its buffers by; for training and for ``enjoy``.

    Sets ``core`` (``--use_rnn=False`` asks for "feedforward"), ``use_rnn``, ``rnn_type``, ``rnn_num_layers`` and
    ``rnn_size`` (the numbers of state of one agent, of which Sample Factory stores four bytes each for every step of
    every rollout) and, where it is -1, ``recurrence``. Where ``--restart_behavior=resume`` finds the experiment's
    ``config.json``, settings of the core that no flag gives are taken from there, as Sample Factory does.

    Args:
        cfg: what Sample Factory's ``parse_full_cfg`` returns, from a parser with :func:`add_core_arguments`.

    Returns:
        ``cfg``, changed in place.

    Raises:
        ConfigError: a ``ValueError`` of one line, for a setting that cannot work, alone or with others, or that an
            experiment cannot change when it is resumed.
    """
    config: Any = cfg
    if not hasattr(config, "core"):
        raise ConfigError("--core is missing: call add_core_arguments(parser) before the flags are parsed")
    given: Mapping[str, Any] = getattr(config, "cli_args", {})
    check_no_size_flags(given, core_setting_names(exclude=_FROM_ROLLOUT, fixed=True))
    core = chosen_core(config.core, config.use_rnn, "core" in given)
    if core != config.core:
        given = {**given, "core": core}
    _resume(config, given, core)
    if not config.actor_critic_share_weights:
        raise ConfigError(
            "--actor_critic_share_weights is False, allowed: True (Sample Factory's learner cannot train two "
            "recurrent networks)"
        )
    if config.recurrence == -1:
        config.recurrence = config.rollout
    _check_recurrence(config)
    for name, value in buffer_settings(config.core, config).items():
        setattr(config, name, value)
    return cfg


def make_model_core(cfg: Any, core_input_size: int) -> SampleFactoryCore:
    """Core factory.

    Raises:
        ConfigError: Sample Factory's buffers are not of the core's size.
    """
    core = SampleFactoryCore(cfg, core_input_size)
    if (size := max(1, core.core.state_size)) != cfg.rnn_size:
        raise ConfigError(
            f"--rnn_size is {cfg.rnn_size}, but the state of --core={cfg.core} has {size} numbers: call "
            "finish_core_config(cfg) after parsing"
        )
    return core


def register_core() -> None:
    """Put the cores, and nothing else, into Sample Factory's model factory.

    Encoder, decoder, actor-critic, environment and learner stay Sample Factory's, or those that you register;
    ``srwm_agents.register("sample_factory")`` puts our Procgen environment, encoder and actor-critic there too.
    """
    global_model_factory().register_model_core_factory(make_model_core)


def _mapping(cfg: Any) -> Mapping[str, Any]:
    return cfg if isinstance(cfg, Mapping) else vars(cfg)


def _resume(config: Any, given: Mapping[str, Any], core: str) -> None:
    """Take the core of the experiment that ``config`` goes on with, if there is one.

    Raises:
        ConfigError: a flag asks for another, or the experiment has none.
    """
    config.core = core
    try:
        folder = experiment_path(config.train_dir, config.experiment)
    except ExperimentError as error:
        raise ConfigError(str(error)) from error
    file = folder / "config.json"
    if config.restart_behavior != "resume" or not file.is_file():
        return
    try:
        saved = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON: {error}") from error
    if "core" not in saved:
        raise ConfigError(f"--experiment is {config.experiment!r}, which was trained without --core; use another")
    fixed = ("core", *core_setting_names(exclude=_FROM_ROLLOUT, fixed=True))
    for name in ("core", *core_setting_names(exclude=_FROM_ROLLOUT), "rollout", "recurrence"):
        if name not in saved:
            continue
        if name not in given:
            setattr(config, name, saved[name])
        elif name in fixed and given[name] != saved[name]:
            raise ConfigError(
                f"--{name} is {given[name]!r}, but --experiment={config.experiment} has {saved[name]!r} and goes on "
                "with it; leave the flag out or use another experiment"
            )


def _check_recurrence(config: Any) -> None:
    if config.rollout < 2:
        raise ConfigError(f"--rollout is {config.rollout}, expected at least 2")
    if config.recurrence < 2 or config.rollout % config.recurrence:
        raise ConfigError(
            f"--recurrence is {config.recurrence}, expected -1 or a divisor of --rollout = {config.rollout}, at least 2"
        )
    if config.with_vtrace and config.recurrence != config.rollout:
        raise ConfigError(f"--recurrence is {config.recurrence}, expected --rollout = {config.rollout} with V-trace")
