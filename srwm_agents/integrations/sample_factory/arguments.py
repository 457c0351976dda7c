"""The command line of training: the flags of :mod:`.flags`, with presets as defaults."""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srwm_agents.command_line import HelpAll, OneLineParser, program, underscored, user_path
from srwm_agents.integrations.sample_factory.flags import add_flags
from srwm_agents.integrations.sample_factory.request import RECIPES, ConfigError, preset_settings
from srwm_agents.recipes import load_recipe, recipe_names


def make_parser() -> OneLineParser:
    """The whole parser, with the common defaults; a preset's are set by :func:`parse_train_args`."""
    parser = OneLineParser(
        prog=program("train"),
        usage="%(prog)s [--preset NAME] [--core NAME] [--FLAG VALUE …]",
        description="Train a recurrent agent on Procgen, or on a Gymnasium environment (--env). With --preset NAME "
        "--help shows that preset's values as defaults. --help-all describes every flag.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.brief_help = True
    add_flags(parser, _preset)
    group = parser.add_argument_group("help")
    group.add_argument("-h", "--help", action="help", help="Show what most runs need")
    group.add_argument(
        "--help-all", "--help_all", action=HelpAll, help="Describe every flag, also Sample Factory's own"
    )
    # Sample Factory's own two layers of 512 are larger than the default memory.
    parser.set_defaults(device="auto", encoder_mlp_layers=[128], **load_recipe(RECIPES, "_common"))
    return parser


def parse_train_args(
    argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Parse a training command line; exits with status 1 and one line for a wrong flag, with 0 after ``--help``.

    ``parser`` is :func:`make_parser`'s unless a command adds flags of its own to one.
    """
    arguments = underscored(sys.argv[1:] if argv is None else argv)
    parser = parser or make_parser()
    finder = OneLineParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", type=_preset)
    preset = finder.parse_known_args(arguments)[0].preset
    flag_defaults = vars(parser.parse_args([]))
    if preset is not None:
        try:
            parser.set_defaults(**_typed(parser, preset, preset_settings(preset)))
        except ConfigError as error:
            parser.error(str(error))
    args = parser.parse_args(arguments)
    args.flag_defaults = flag_defaults
    # What Sample Factory's own parse_full_cfg adds; that one also asks git for the revision, which complains on the
    # console wherever training runs outside a repository.
    args.command_line = " ".join(arguments)
    args.git_hash, args.git_repo_name = "unknown", "not a git repository"
    args.cli_args = _given(parser, arguments)
    return args


def _preset(text: str) -> str:
    """A shipped preset's name, or the path of a YAML file."""
    names = recipe_names(RECIPES)
    if text in names:
        return text
    if Path(text).suffix in (".yaml", ".yml"):
        return str(user_path(text))
    close = difflib.get_close_matches(text, names, n=1)
    raise argparse.ArgumentTypeError(
        f"invalid choice: {text!r} (choose from {', '.join(names)}, or a file NAME.yaml)"
        + (f", did you mean {close[0]}?" if close else "")
    )


def _typed(parser: argparse.ArgumentParser, preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A preset's settings as their flags would read them.

    Raises:
        ConfigError: a setting that no flag has, or a value that its flag would refuse.
    """
    actions = {action.dest: action for action in parser._actions}
    typed = {}
    for name, value in settings.items():
        if name not in actions or name in ("help", "preset"):
            close = difflib.get_close_matches(name, actions, n=1)
            meant = f", did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--preset={preset} has the setting {name!r}, which no flag has{meant}")
        many = isinstance(value, list)
        if many != (actions[name].nargs == "*"):
            raise ConfigError(f"{name} in --preset={preset} is {value!r}, expected {'one value' if many else 'a list'}")
        try:
            read = [_read(parser, actions[name], entry) for entry in (value if many else [value])]
        except argparse.ArgumentError as error:
            raise ConfigError(f"{name} in --preset={preset}: {error.message}") from error
        typed[name] = read if many else read[0]
    return typed


def _read(parser: argparse.ArgumentParser, action: argparse.Action, value: Any) -> Any:
    """A value of a YAML file as ``action`` reads it from a command line; an empty one is kept."""
    if value is None:
        return None
    read = parser._get_value(action, json.dumps(value) if isinstance(value, dict) else str(value))
    parser._check_value(action, read)
    return read


def _given(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The flags that the user wrote, without defaults: on resume these override the saved settings."""
    silent = copy.deepcopy(parser)
    for action in silent._actions:
        action.default = argparse.SUPPRESS
    silent._defaults.clear()
    return vars(silent.parse_args(arguments))
