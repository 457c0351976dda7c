"""A training run's request: flags that were given, over a preset's settings, over the flags' defaults.

``config.json`` holds it ("request"), which of it were flags ("given"), and the latest command line.

Nothing in it depends on the machine, and nothing in it follows from anything else: :mod:`.deriving` makes the rest from
it at every start, :mod:`.resuming` merges it with the flags of a later command line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srwm_agents.envs.games import parse_games
from srwm_agents.files import write_atomically
from srwm_agents.integrations.sample_factory.core import ConfigError, chosen_core
from srwm_agents.recipes import RecipeError, load_recipe, read_recipe, recipe_names

COMMAND_LINE_ONLY = ("train_dir", "experiment", "restart_behavior", "threads")
"""Flags that are never saved: where the experiment lies, whether to delete what lies there, threads of the machine."""

PROCGEN = "procgen"
"""The ``--env`` whose tasks are ``--games``; any other is the id of a Gymnasium environment."""

RECIPES = "training"
"""The kind of recipes that ``--preset`` names."""

_NO_SETTINGS = ("help", "cli_args", "flag_defaults", "command_line", "git_hash", "git_repo_name", "request", "given")
_KEPT = ("wandb_unique_id",)
"""Made by Sample Factory at an experiment's first start, and to be the same at every later one."""


@dataclass(frozen=True)
class Request:
    """What was asked for: the flags that were given, over a preset's settings, over the flags' defaults."""

    settings: Mapping[str, Any]
    """Every setting by name, but for those of :data:`COMMAND_LINE_ONLY`."""
    given: frozenset[str]
    """The settings that were flags of this start or an earlier one, as opposed to defaults and presets."""

    def __getitem__(self, name: str) -> Any:
        return self.settings[name]


def request_of(args: Any) -> Request:
    """The request of one command line, as :func:`.arguments.parse_train_args` parses it."""
    return Request(saved_settings(vars(args)), frozenset(saved_settings(args.cli_args)) - {"preset"})


def saved_settings(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a parsed command line or a saved configuration that belong into a request."""
    return {name: value for name, value in mapping.items() if name not in (*_NO_SETTINGS, *COMMAND_LINE_ONLY)}


def preset_settings(preset: str) -> dict[str, Any]:
    """The settings of a preset: a shipped recipe's name, or the path of a recipe of the user's own.

    Raises:
        ConfigError: it cannot be read, or asks for what only a command line may ask for.
    """
    try:
        settings = load_recipe(RECIPES, preset) if preset in recipe_names(RECIPES) else read_recipe(preset, RECIPES)
    except RecipeError as error:
        raise ConfigError(f"--preset: {error}") from error
    if "restart_behavior" in settings:
        raise ConfigError(f"--preset={preset} has restart_behavior, which deletes or moves what is there: a flag only")
    return settings


def core_of(request: Request) -> str:
    """The core that is asked for; see :func:`.core.chosen_core`."""
    return chosen_core(request["core"], request["use_rnn"], "core" in request.given)


def games_of(request: Request) -> list[str]:
    """The games that are asked for.

    Raises:
        ConfigError: there is none, one is unknown, or one comes twice.
    """
    try:
        return parse_games(request["games"])
    except ValueError as error:
        raise ConfigError(str(error)) from error


def save_request(cfg: Any, file: Path) -> None:
    """Write a finished configuration's request as JSON; the file is replaced in one step."""
    kept = {name: cfg[name] for name in _KEPT if name in cfg}
    saved = {"command_line": cfg.command_line, "given": cfg.given, "request": cfg.request | kept}
    write_atomically(file, json.dumps(saved, indent=2) + "\n")
