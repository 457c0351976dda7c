"""From parsed flags to a configuration that Sample Factory can run: the request, what follows from it, and checks."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sample_factory.utils.attr_dict import AttrDict

from srwm_agents.cores.config import core_setting_names
from srwm_agents.experiment_folders import TRAINING as CONTENTS
from srwm_agents.experiment_folders import ExperimentError, experiment_path
from srwm_agents.integrations.sample_factory.checks import check, check_numbers
from srwm_agents.integrations.sample_factory.core import ConfigError, check_no_size_flags, core_settings
from srwm_agents.integrations.sample_factory.deriving import Machine, derive
from srwm_agents.integrations.sample_factory.no_effect import check_effects
from srwm_agents.integrations.sample_factory.per_game import game_discounts, random_starts
from srwm_agents.integrations.sample_factory.request import (
    COMMAND_LINE_ONLY,
    request_of,
    save_request,
)
from srwm_agents.integrations.sample_factory.resuming import NOT_OF_THE_NETWORK, read_request, resume

__all__ = [
    "CONTENTS",
    "ConfigError",
    "Machine",
    "core_settings",
    "experiment_folder",
    "finish_config",
    "game_discounts",
    "random_starts",
    "save_config",
]

_ABOUT_THE_COMMAND = ("cli_args", "command_line", "git_hash", "git_repo_name")
"""What Sample Factory expects in a configuration beside settings."""


def experiment_folder(cfg: Any) -> Path:
    """Where an experiment's files lie; unlike Sample Factory's own function, this one makes no folder.

    Raises:
        ConfigError: the experiment's name leads out of ``train_dir``.
    """
    try:
        return experiment_path(cfg.train_dir, cfg.experiment)
    except ExperimentError as error:
        raise ConfigError(str(error)) from error


def save_config(cfg: Any) -> None:
    """Write ``config.json`` into the experiment's folder: what was asked for, and nothing derived."""
    save_request(cfg, experiment_folder(cfg) / "config.json")


def finish_config(args: Any, machine: Machine | None = None, **imposed: Any) -> AttrDict:
    """A configuration to run: merged with a saved experiment's request if there is one, completed, and checked.

    Args:
        args: what :func:`.arguments.parse_train_args` returns.
        machine: to run on; None for this one.
        imposed: settings that the calling command decides whatever is asked for; they are not saved.

    Raises:
        ConfigError: a setting that cannot work, or one that a resumed experiment cannot change.
    """
    check_no_size_flags(args.cli_args, core_setting_names(exclude=NOT_OF_THE_NETWORK))
    folder = experiment_folder(args)
    request = request_of(args)
    if args.restart_behavior == "resume":
        saved = read_request(folder, args.flag_defaults)
        request = request if saved is None else resume(saved, request, args.experiment)
    effective = replace(request, settings={**request.settings, **imposed})
    check_numbers(effective)
    derived = derive(effective, machine or Machine.here())
    cfg = AttrDict(
        {
            **effective.settings,
            **asdict(derived),
            **{name: getattr(args, name) for name in (*COMMAND_LINE_ONLY, *_ABOUT_THE_COMMAND)},
            "request": dict(request.settings),
            "given": sorted(request.given),
        }
    )
    check(cfg)
    check_effects(cfg, args.cli_args, args.flag_defaults)
    return cfg
