"""The command line of training: Sample Factory's flags, ours beside them, presets as defaults."""

from __future__ import annotations

import argparse
import copy
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sample_factory.cfg import cfg as sf_cfg
from sample_factory.utils.utils import str2bool

from srwm_agents.command_line import OneLineParser, json_object, program, underscored, user_path
from srwm_agents.cores import CORES, CoreConfig
from srwm_agents.cores.config import core_setting_names
from srwm_agents.encoders import ENCODERS
from srwm_agents.envs.games import MODES
from srwm_agents.integrations.sample_factory.request import RECIPES, ConfigError, preset_settings
from srwm_agents.machine import add_threads_flag
from srwm_agents.recipes import load_recipe, recipe_names
from srwm_agents.settings import add_dataclass_flags


def make_parser() -> argparse.ArgumentParser:
    """The whole parser, with the common defaults; a preset's are set by :func:`parse_train_args`."""
    parser = OneLineParser(
        prog=program("train"),
        description="Train a recurrent agent on Procgen, or on a Gymnasium environment (--env). "
        "Flags of Sample Factory follow ours.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    _add_our_arguments(parser)
    for add in (
        sf_cfg.add_basic_cli_args,
        sf_cfg.add_rl_args,
        sf_cfg.add_model_args,
        sf_cfg.add_default_env_args,
        sf_cfg.add_wandb_args,
        sf_cfg.add_pbt_args,
    ):
        add(parser)
    actions = {action.dest: action for action in parser._actions}
    actions["env"].required = False
    actions["env"].help = (
        "procgen (choose games with --games), or the id of a Gymnasium environment, as CartPole-v1, or module:ID to "
        "import the module that registers it"
    )
    actions["encoder_mlp_layers"].help = "Fully connected layers for numbers and categories that --env observes"
    actions["train_dir"].type = _absolute
    actions["encoder_conv_architecture"].choices = list(ENCODERS)
    actions["optimizer"].choices = ["adam", "lamb", "rmsprop"]
    actions["lr_schedule"].choices = ["constant", "kl_adaptive_minibatch", "kl_adaptive_epoch", "linear_decay"]
    actions["device"].choices, actions["device"].help = ["auto", "gpu", "cpu"], "auto: a GPU where there is one"
    actions["seed"].help = (
        "Of weights, levels and actions. The same numbers again only with --serial_mode=True and one thread of PyTorch "
        "(OMP_NUM_THREADS=1), on the same machine; otherwise they depend on which worker is first"
    )
    actions[
        "batch_size"
    ].help = "Frames of a minibatch; under torchrun of each process: an update learns from those of all"
    actions["train_for_env_steps"].help = "Frames to train for; under torchrun those of all processes together"
    actions["restart_behavior"].help = (
        "If the experiment is there already: go on with it (resume); move it to NAME_old0001 (restart) or delete what "
        "training made of it (overwrite), and begin anew. For this start alone: it is never saved"
    )
    actions[
        "experiment"
    ].help = "Name of the experiment and of its folder in --train_dir; if it is there, it is resumed"
    # Sample Factory's own two layers of 512 are larger than the default memory.
    parser.set_defaults(device="auto", encoder_mlp_layers=[128], **load_recipe(RECIPES, "_common"))
    return parser


def _add_our_arguments(parser: argparse.ArgumentParser) -> None:
    ours = parser.add_argument_group("srwm-agents")

    def add(flag: str, default: Any, text: str, **options: Any) -> None:
        if isinstance(default, bool):
            options["type"] = str2bool
        elif not options.keys() & {"choices", "type"}:
            options["type"] = type(default)
        ours.add_argument(f"--{flag}", default=default, help=text, **options)

    add("preset", None, f"Settings by name ({', '.join(recipe_names(RECIPES))}) or from a YAML file of your own "
        "(srwm_agents/recipes/training has examples); flags override them", type=_preset)  # fmt: skip
    add("core", "srwm", "Memory of the agent", choices=list(CORES))
    add("games", "", "Procgen games, comma-separated, all in one vector environment")
    add("distribution_mode", "easy", "Procgen's variant of the games", choices=list(MODES))
    add("num_levels", 200, "Number of training levels; 0: all levels")
    add("start_level", 0, "First training level; not with --num_levels=0")
    add("env_kwargs", "{}", "Arguments that --env is made with, as JSON: '{\"size\": 5}'", type=_json_object)
    add("last_action", False, "Give the core the last action too: one-hot, or (of a Box) from -1 to 1")
    add("last_reward", True, "Give the core the last reward, clipped to ±1; for --env=procgen always")
    add("env_threads", -1, "C++ threads of each Procgen vector, processes of each vector of another --env (0: none); "
        "-1: the machine's cores over the vectors")  # fmt: skip
    add_threads_flag(ours)
    add_dataclass_flags(ours, CoreConfig, names=core_setting_names(exclude=("rollout_length",)))
    add("policy_head_scale", 0.01, "Factor on the policy head's initial weights; small means a uniform first policy")
    add("policy_loss", "vtrace", "Policy gradient of V-trace, or PPO's clipped one", choices=["vtrace", "ppo"])
    add("vtrace_lambda", 1.0, "Lambda of V-trace: 1 as published; below 1 it multiplies the trace, as in GAE(lambda)")
    add("critic", "shared", "Value head on the policy's features (shared), on these without a gradient into them "
        "(detached), or on an encoder of its own (separate)", choices=["shared", "detached", "separate"])  # fmt: skip
    add("advantage_loss_coeff", 0.25, "Weight of predicting advantages from the policy's features; not --critic=shared")
    add("game_gammas", "", "Discounts of single games, as maze=.999,plunder=.997; the others have --gamma")
    add("random_starts", "", "Games whose episodes begin with random steps that are not learned from, and the largest "
        "number of these, as maze=100")  # fmt: skip
    add("spread_starts", 0, "Before training, take so many random steps, in which each game begins a new level at some "
        "time: so that not all are at the same time of an episode; 0: none")  # fmt: skip
    add("normalize_advantages", False, "Scale each minibatch's advantages to mean 0 and deviation 1")
    add("balance_games", False, "Divide each game's advantages and value loss by a running size of its advantages")
    add("reward_treatment", "clip", "Clip rewards at --reward_clip, divide each game's by its returns' deviation, "
        "or leave them as they are", choices=["clip", "return_norm", "none"])  # fmt: skip
    add("popart", False, "A value output a game, in units of that game's targets (PopArt), and advantages too")
    add("popart_step_size", 3e-4, "How far PopArt's statistics move to those of each minibatch")
    add("augment_shift", 0, "Learn from images moved by up to this many pixels, alike in all steps of a rollout")
    add("augment_consistency", 0.0, "Learn from images as they are, and with this weight to do the same on moved ones")
    add(
        "loss_reduction",
        "mean",
        "How losses are reduced over the steps of a minibatch (paper: sum)",
        choices=["mean", "sum"],
    )
    add("rmsprop_alpha", 0.99, "RMSprop's smoothing constant")
    add("rmsprop_eps", 0.01, "RMSprop's epsilon")
    add("rmsprop_momentum", 0.0, "RMSprop's momentum")
    add("mixed_precision", "none", "Precision of the encoder on a GPU", choices=["none", "bf16"])
    add("compile", False, "torch.compile the encoder; costs some seconds at the start")
    add("cuda_graphs", False, "Replay acting and each update as one CUDA graph; needs --device=gpu")
    add("in_process", False, "Play, act and learn in threads of one process, which share a GPU better than processes")
    add("max_pending_iterations", -1, "Begin a rollout only while at most this many training iterations that have "
        "their data are still to be made: 0 for the youngest; -1: no limit. Needs --in_process=True")  # fmt: skip
    add("log_console", False, "Print Sample Factory's own log too (it always goes to sf_log.txt)")


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
    if args.help:
        parser.print_help()
        sys.exit(0)
    args.flag_defaults = flag_defaults
    # What Sample Factory's own parse_full_cfg adds; that one also asks git for the revision, which complains on the
    # console wherever training runs outside a repository.
    args.command_line = " ".join(arguments)
    args.git_hash, args.git_repo_name = "unknown", "not a git repository"
    args.cli_args = _given(parser, arguments)
    return args


def _absolute(text: str) -> str:
    """A folder as the user typed it, from the root: another working directory later on changes nothing."""
    return str(user_path(text).absolute())


def _json_object(text: str) -> str:
    """A JSON object, in one spelling."""
    return json.dumps(json_object(text), sort_keys=True)


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
