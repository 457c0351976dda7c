"""The command line of training: Sample Factory's flags, ours beside them, presets as defaults."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from typing import Any

import torch
from sample_factory.cfg import cfg as sf_cfg
from sample_factory.utils.utils import str2bool

from envs.games import MODES
from srwm_agents.command_line import OneLineParser, underscored
from srwm_agents.cores import CORES
from srwm_agents.encoders import ENCODERS
from srwm_agents.integrations.sample_factory.presets import COMMON, PRESETS
from srwm_agents.ops.srwm import BACKENDS


def make_parser() -> argparse.ArgumentParser:
    """The whole parser, with the common defaults; a preset's are set by :func:`parse_train_args`."""
    parser = OneLineParser(
        prog="train_rl.py",
        description="Train a recurrent agent on Procgen. Flags of Sample Factory follow ours.",
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
    actions["encoder_conv_architecture"].choices = list(ENCODERS)
    actions["optimizer"].choices = ["adam", "lamb", "rmsprop"]
    actions["lr_schedule"].choices = ["constant", "kl_adaptive_minibatch", "kl_adaptive_epoch", "linear_decay"]
    parser.set_defaults(**COMMON)
    return parser


def _add_our_arguments(parser: argparse.ArgumentParser) -> None:
    ours = parser.add_argument_group("srwm-agents")

    def add(flag: str, default: Any, text: str, **options: Any) -> None:
        if isinstance(default, bool):
            options["type"] = str2bool
        elif "choices" not in options and default is not None:
            options["type"] = type(default)
        ours.add_argument(f"--{flag}", default=default, help=text, **options)

    add("preset", None, "Settings by name; flags override them", choices=sorted(PRESETS))
    add("core", "srwm", "Memory of the agent", choices=list(CORES))
    add("games", "", "Procgen games, comma-separated, all in one vector environment")
    add("distribution_mode", "easy", "Procgen's variant of the games", choices=list(MODES))
    add("num_levels", 200, "Number of training levels; 0 for no bound")
    add("start_level", 0, "First training level")
    add("last_action", False, "Give the core the last action, one-hot, beside features and last reward")
    add("env_threads", -1, "C++ threads of each vector environment; -1: the machine's cores over the vectors")
    add("hidden_size", 128, "Width of the core")
    add("num_layers", 2, "Memory layers of the core")
    add("num_heads", 8, "Heads of each memory layer")
    add("ff_size", 512, "Width inside the core's feed-forward blocks")
    add("input_softmax", True, "Softmax over each SRWM head's inputs")
    add("input_norm", False, "Layer norm before each memory layer")
    add("beta_mean", 0.0, "Mean of the initial weights that make an SRWM's learning rates")
    add("query_scale", 1.0, "Factor on the initial weights that make an SRWM's queries")
    add("state_decay", 1.0, "Factor on an SRWM's state at each step; 1, as published, forgets nothing")
    add("state_limit", 0.0, "Largest size of an SRWM's state in units of its slow weights; 0, as published: no limit")
    add("unit_keys", False, "Queries and keys of an SRWM of length 1, not sum 1 as published, against explosions")
    add("detach_state_every_step", False, "Cut the gradient through an SRWM's state at every step (published code)")
    add("policy_head_scale", 0.01, "Factor on the policy head's initial weights; small means a uniform first policy")
    add("policy_loss", "vtrace", "Policy gradient of V-trace, or PPO's clipped one", choices=["vtrace", "ppo"])
    add("vtrace_lambda", 1.0, "Lambda of V-trace: 1 as published; below 1 it multiplies the trace, as in GAE(lambda)")
    add("critic", "shared", "Values from the policy's own features; or from those, teaching them nothing (detached); "
        "or from an encoder of the critic's own (separate)", choices=["shared", "detached", "separate"])  # fmt: skip
    add("advantage_loss_coeff", 0.25, "Weight of the policy's error at predicting advantages, if no value teaches it")
    add("game_gammas", "", "Discounts of single games, as maze=.999,plunder=.997; the others have --gamma")
    add("random_starts", "", "Games whose episodes begin with random steps that are not learned from, and the largest "
        "number of these, as maze=100")  # fmt: skip
    add("normalize_advantages", False, "Scale each minibatch's advantages to mean 0 and deviation 1")
    add("balance_games", False, "Divide each game's advantages and value loss by a running size of its advantages")
    add("reward_treatment", "clip", "Clip rewards at --reward_clip, divide each game's by its returns' deviation, "
        "or leave them as they are", choices=["clip", "return_norm", "none"])  # fmt: skip
    add("popart", False, "A value output a game, in units of that game's targets (PopArt), and advantages too")
    add("popart_step_size", 3e-4, "How far PopArt's statistics move to those of each minibatch")
    add("augment_shift", 0, "Learn from images moved by up to this many pixels, alike in all steps of a rollout")
    add("augment_consistency", 0.0, "Learn from images as they are, and with this weight to do the same on moved ones")
    add("loss_reduction", "mean", "Over the steps of a minibatch (the paper: sum)", choices=["mean", "sum"])
    add("rmsprop_alpha", 0.99, "RMSprop's smoothing constant")
    add("rmsprop_eps", 0.01, "RMSprop's epsilon")
    add("rmsprop_momentum", 0.0, "RMSprop's momentum")
    add("mixed_precision", "none", "Precision of the encoder on a GPU", choices=["none", "bf16"])
    add("compile", False, "torch.compile the encoder; costs some seconds at the start")
    add("cuda_graphs", False, "Replay acting and each update as one CUDA graph; needs --device=gpu")
    add("in_process", False, "Play, act and learn in threads of one process, which share a GPU better than processes")
    add("backend", "auto", "Of the cores' ops", choices=list(BACKENDS))
    add("log_console", False, "Print Sample Factory's own log too (it always goes to sf_log.txt)")


def parse_train_args(
    argv: Sequence[str] | None = None, parser: argparse.ArgumentParser | None = None
) -> argparse.Namespace:
    """Parse a training command line; exits with status 2 and one line for a wrong flag, with 0 after ``--help``.

    ``parser`` is :func:`make_parser`'s unless a command adds flags of its own to one.
    """
    arguments = underscored(sys.argv[1:] if argv is None else argv)
    parser = parser or make_parser()
    finder = OneLineParser(prog=parser.prog, add_help=False, allow_abbrev=False)
    finder.add_argument("--preset", choices=sorted(PRESETS))
    preset = finder.parse_known_args(arguments)[0].preset
    parser.set_defaults(device="gpu" if torch.cuda.is_available() else "cpu")
    if preset is not None:
        parser.set_defaults(**PRESETS[preset])
    args = parser.parse_args(arguments)
    if args.help:
        parser.print_help()
        sys.exit(0)
    # What Sample Factory's own parse_full_cfg adds; that one also asks git for the revision, which complains on the
    # console wherever training runs outside a repository.
    args.command_line = " ".join(arguments)
    args.git_hash, args.git_repo_name = "unknown", "not a git repository"
    args.cli_args = _given(parser, arguments)
    return args


def _given(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The flags that the user wrote, without defaults: on resume these override the saved settings."""
    silent = copy.deepcopy(parser)
    for action in silent._actions:
        action.default = argparse.SUPPRESS
    silent._defaults.clear()
    return vars(silent.parse_args(arguments))
