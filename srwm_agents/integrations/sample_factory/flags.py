"""The flags of training by subject: ours, and those of Sample Factory that we describe or refuse.

This is the only list of them: parser, ``--help`` and the reference page are made from it. A flag of Sample Factory that
is not here keeps its own text and default, and ``--help`` names it after ours.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sample_factory.cfg import cfg as sf_cfg
from sample_factory.utils.utils import str2bool

from srwm_agents.command_help import Flag, Shown
from srwm_agents.command_line import json_object, user_path
from srwm_agents.cores import CORES, CoreConfig
from srwm_agents.cores.config import core_setting_names
from srwm_agents.encoders import ENCODERS
from srwm_agents.envs.games import MODES
from srwm_agents.integrations.sample_factory.checks import RANGES
from srwm_agents.integrations.sample_factory.core import SIZE_FLAGS
from srwm_agents.integrations.sample_factory.no_effect import IGNORED, METRICS, ONLY_VALUE
from srwm_agents.integrations.sample_factory.request import RECIPES
from srwm_agents.machine import THREADS_HELP, thread_count
from srwm_agents.recipes import recipe_names
from srwm_agents.settings import add_dataclass_flags

_THEIRS: Any = object()
"""In place of a default: the flag is Sample Factory's, and so is its default."""


@dataclass(frozen=True)
class _Entry:
    name: str
    default: Any
    text: str
    choices: tuple[str, ...] | None
    type: Callable[[str], Any] | None
    shown: Shown


def _ours(
    name: str,
    default: Any,
    text: str,
    choices: Iterable[str] | None = None,
    type: Callable[[str], Any] | None = None,
    few_need: bool = False,
) -> _Entry:
    """A flag of ours; its type is its default's, unless ``type`` reads it. ``--help`` only names what few need."""
    if type is None and choices is None:
        type = str2bool if isinstance(default, bool) else default.__class__
    allowed = None if choices is None else tuple(choices)
    return _Entry(name, default, text, allowed, type, Shown.NAMED if few_need else Shown.DESCRIBED)


def _theirs(
    name: str,
    text: str,
    choices: Iterable[str] | None = None,
    type: Callable[[str], Any] | None = None,
    few_need: bool = False,
) -> _Entry:
    """A flag of Sample Factory's, with our text, and with our choices if there are any."""
    allowed = None if choices is None else tuple(choices)
    return _Entry(name, _THEIRS, text, allowed, type, Shown.NAMED if few_need else Shown.DESCRIBED)


def _absolute(text: str) -> str:
    """A folder as the user typed it, from the root: another working directory later on changes nothing."""
    return str(user_path(text).absolute())


def _json_object(text: str) -> str:
    """A JSON object, in one spelling."""
    return json.dumps(json_object(text), sort_keys=True)


def _subjects(preset: Callable[[str], str]) -> dict[str, tuple[_Entry, ...]]:
    """Flags by subject, in the order of ``--help``; ``preset`` reads ``--preset``.

    A text's first sentence has to do for ``--help``, which leaves the others to ``--help-all``.
    """
    return {
        "the run": (
            _ours("preset", None, f"Settings by name ({', '.join(recipe_names(RECIPES))}) or a YAML file of yours; "
                  "flags override them. Examples: srwm_agents/recipes/training", type=preset),
            _theirs("experiment", "Name of the run and of its folder; if it is there, it is resumed"),
            _theirs("train_dir", "Where experiments lie", type=_absolute),
            _theirs("restart_behavior", "If the run is there. Go on (resume); move it to NAME_old0001 (restart) or "
                    "delete what training made of it (overwrite), and begin anew. For this start alone: it is never "
                    "saved"),
            _theirs("train_for_env_steps", "Frames to train for. Under torchrun those of all processes together"),
            _theirs("train_for_seconds", "Time to train for. Whatever comes first ends the run"),
            _theirs("seed", "Of weights, levels and actions. The same numbers again only with --serial_mode=True and "
                    "one thread of PyTorch (OMP_NUM_THREADS=1), on the same machine; otherwise they depend on which "
                    "worker is first"),
        ),
        "what it plays": (
            _theirs("env", "procgen, or a Gymnasium id, as CartPole-v1 or MODULE:ID. The module is imported first, and "
                    "registers the environment"),
            _ours("env_kwargs", "{}", "Arguments that --env is made with, as '{\"size\": 5}'", type=_json_object),
            _ours("games", "", "Procgen games, comma-separated. All are in one vector environment"),
            _ours("distribution_mode", "easy", "Procgen's variant of the games", MODES),
            _ours("num_levels", 200, "Number of training levels; 0: all levels"),
            _ours("start_level", 0, "First training level; not with --num_levels=0"),
            _ours("random_starts", "", "Games whose episodes begin with random steps that are not learned from, and "
                  "the largest number of these, as maze=100", few_need=True),
            _ours("spread_starts", 0, "Before training, take so many random steps, in which each game begins a new "
                  "level at some time: so that not all are at the same time of an episode; 0: none", few_need=True),
            _ours("mirror", False, "Play each episode in a mirror image of its level that the game's rules do not tell "
                  "apart, drawn at random: few levels are more; bigfish, fruitbot, leaper, maze, starpilot"),
        ),
        "what it sees": (
            _ours("last_action", False, "Give the core the last action too. One-hot, or (of a Box) from -1 to 1"),
            _ours("last_reward", True, "Give the core the last reward, clipped to ±1; for --env=procgen always",
                  few_need=True),
            _ours("episode_step", False, "Give the core the step of the episode too, as sines and cosines: a memory "
                  "that is addressed by keys finds by it what was seen k steps ago. Not for --env=procgen",
                  few_need=True),
            _theirs("encoder_conv_architecture", "Encoder of images", ENCODERS),
            _theirs("encoder_conv_mlp_layers", "Widths of the layers after the encoder of images", few_need=True),
            _theirs("encoder_mlp_layers", "Widths of the layers for numbers and categories that --env observes",
                    few_need=True),
            _ours("augment_shift", 0, "Learn from images moved by up to this many pixels. They are moved alike in all "
                  "steps of a rollout"),
            _ours("augment_consistency", 0.0, "Learn from images as they are, and with this weight to do the same on "
                  "moved ones", few_need=True),
        ),
        "core": (_ours("core", "srwm", "Memory of the agent", CORES),),
        "learning": (
            _theirs("learning_rate", "Of the optimizer, at its highest"),
            _theirs("lr_schedule", "How it changes",
                    ("constant", "kl_adaptive_minibatch", "kl_adaptive_epoch", "linear_decay")),
            _theirs("optimizer", "Optimizer", ("adam", "lamb", "rmsprop")),
            _theirs("rollout", "Steps of a rollout and of back-propagation"),
            _theirs("batch_size", "Frames of a minibatch. Under torchrun of each process: an update learns from those "
                    "of all"),
            _theirs("num_batches_per_epoch", "Minibatches of a training iteration", few_need=True),
            _theirs("num_epochs", "Times that frames are learned from"),
            _theirs("gamma", "Discount factor"),
            _ours("game_gammas", "", "Discounts of single games, as maze=.999,plunder=.997; the others have --gamma",
                  few_need=True),
            _ours("game_value_coeffs", "", "Factors on the value error of single games, as plunder=.125; the others "
                  "have 1", few_need=True),
            _theirs("exploration_loss_coeff", "Weight of the entropy"),
            _theirs("value_loss_coeff", "Weight of the value error", few_need=True),
            _theirs("max_grad_norm", "The gradient is scaled down to this norm; 0: never", few_need=True),
            _theirs("with_vtrace", "V-trace; False: PPO with GAE, as Sample Factory has them", few_need=True),
            _ours("policy_loss", "vtrace", "Policy gradient. V-trace's, or PPO's clipped one", ("vtrace", "ppo")),
            _ours("vtrace_lambda", 1.0, "Lambda of V-trace: 1 as published; below 1 it multiplies the trace, as in "
                  "GAE(lambda)", few_need=True),
            _ours("critic", "shared", "Where values come from. The policy's features (shared), these without a "
                  "gradient into them (detached), or an encoder of its own (separate)",
                  ("shared", "detached", "separate")),
            _ours("critic_every", 1, "The critic learns in one of so many training iterations, the policy in all; not "
                  "--critic=shared", few_need=True),
            _ours("critic_lr_scale", 1.0, "Factor on the critic's learning rate; not --critic=shared", few_need=True),
            _ours("value_gradient_scale", 0.0, "Factor on the gradient of the policy's own value head into its "
                  "features, which then learn to predict values; not --critic=shared", few_need=True),
            _ours("advantage_loss_coeff", 0.25, "Weight of predicting advantages from the policy's features; not "
                  "--critic=shared", few_need=True),
            _ours("advantage_baseline", False, "Subtract from advantages what the policy's features predict of them "
                  "for the state; not --critic=shared", few_need=True),
            _ours("loss_reduction", "mean", "How losses are reduced over the steps of a minibatch (paper: sum)",
                  ("mean", "sum"), few_need=True),
            _ours("policy_head_scale", 0.01, "Factor on the policy head's initial weights; small means a uniform first "
                  "policy", few_need=True),
            _ours("rmsprop_alpha", 0.99, "RMSprop's smoothing constant", few_need=True),
            _ours("rmsprop_eps", 0.01, "RMSprop's epsilon", few_need=True),
            _ours("rmsprop_momentum", 0.0, "RMSprop's momentum", few_need=True),
        ),
        "rewards": (
            _ours("reward_treatment", "clip", "What is done to rewards. Clip them at --reward_clip, divide each game's "
                  "by its returns' deviation, or leave them as they are", ("clip", "return_norm", "none")),
            _theirs("reward_clip", "Largest size of a clipped reward"),
            _ours("balance_games", False, "Divide each game's advantages and value loss by a running size of its "
                  "advantages"),
            _ours("popart", False, "A value output a game, in units of that game's targets. This is PopArt; advantages "
                  "are in these units too"),
            _ours("popart_step_size", 3e-4, "How far PopArt's statistics move to those of each minibatch",
                  few_need=True),
            _ours("normalize_advantages", False, "Scale each minibatch's advantages to mean 0 and deviation 1",
                  few_need=True),
        ),
        "machine and speed": (
            _theirs("device", "Where it learns; auto: a GPU where there is one", ("auto", "gpu", "cpu")),
            _theirs("num_workers", "Workers, each with vectors of environments"),
            _theirs("num_envs_per_worker", "Environments of a worker"),
            _theirs("worker_num_splits", "Vectors of a worker, which act in turn", few_need=True),
            _ours("env_threads", -1, "C++ threads of each Procgen vector, processes of each vector of another --env "
                  "(0: none); -1: the machine's cores over the vectors", few_need=True),
            _ours("threads", None, THREADS_HELP, type=thread_count, few_need=True),
            _ours("in_process", False, "Play, act and learn in threads of one process. They share a GPU better than "
                  "processes"),
            _ours("max_pending_iterations", -1, "Training iterations between playing and learning; -1: no limit. A "
                  "rollout begins only while at most this many that have their data are still to be made: 0 for the "
                  "youngest. Needs --in_process=True"),
            _ours("mixed_precision", "none", "Precision of the encoder on a GPU", ("none", "bf16")),
            _ours("compile", False, "torch.compile the encoder; costs some seconds at the start", few_need=True),
            _ours("cuda_graphs", False, "Replay acting and each update as one CUDA graph; needs --device=gpu"),
            _theirs("serial_mode", "Everything in one process, one after the other: reproducible, slow",
                    few_need=True),
        ),
        "saving and display": (
            _theirs("save_every_sec", "Seconds between checkpoints"),
            _theirs("keep_checkpoints", "Checkpoints that are kept", few_need=True),
            _theirs("load_checkpoint_kind", "Which checkpoint a run goes on from"),
            _theirs("save_best_metric", f"What the best agent is best in: {', '.join(METRICS)}", few_need=True),
            _ours("log_console", False, "Print Sample Factory's own log too. It always goes to sf_log.txt"),
            _theirs("with_wandb", "Report to Weights & Biases; the --wandb flags say where", few_need=True),
        ),
    }  # fmt: skip


def add_flags(parser: argparse.ArgumentParser, preset: Callable[[str], str]) -> None:
    """Add every flag of training to ``parser``, in groups by subject; ``preset`` reads ``--preset``."""
    theirs = _sample_factorys()
    allowed = {name: values.signs for values, names in RANGES.items() for name in names}
    for subject, entries in _subjects(preset).items():
        group = parser.add_argument_group(subject)
        for entry in entries:
            options: dict[str, Any] = {"default": entry.default, "type": entry.type, "choices": entry.choices}
            if entry.default is _THEIRS:
                options = _options(theirs.pop(entry.name)) | {
                    name: value for name, value in options.items() if name != "default" and value is not None
                }
            options |= {"help": entry.text, "allowed": allowed.get(entry.name, ""), "shown": entry.shown}
            group.add_argument(f"--{entry.name}", action=Flag, **options)
        if subject == "core":
            add_dataclass_flags(group, CoreConfig, names=core_setting_names(exclude=("rollout_length",)))
    unused = {
        **{name: f"Allowed: {value} ({why})" for name, (value, why) in ONLY_VALUE.items()},
        **{name: f"Has no effect: {why}" for name, why in IGNORED.items()},
        **dict.fromkeys(SIZE_FLAGS, "Not allowed: it follows from --core and its settings"),
    }
    group = parser.add_argument_group("Sample Factory's own, honoured too")
    for name, action in theirs.items():
        if name not in unused:
            of_a_feature = name.startswith(("pbt_", "wandb_"))  # whose --with flag is named
            options = _options(action) | {"allowed": allowed.get(name, "")}
            options["shown"] = Shown.ONLY_IN_ALL if of_a_feature else Shown.NAMED
            group.add_argument(f"--{name}", action=Flag, **options)
    group = parser.add_argument_group("Sample Factory's own, without effect here")
    for name, text in unused.items():
        options = _options(theirs[name]) | {"help": text, "shown": Shown.ONLY_IN_ALL}
        group.add_argument(f"--{name}", action=Flag, **options)


def _sample_factorys() -> dict[str, argparse.Action]:
    """Sample Factory's flags by name, without ``--help``."""
    parser = argparse.ArgumentParser(add_help=False)
    for add in (
        sf_cfg.add_basic_cli_args,
        sf_cfg.add_rl_args,
        sf_cfg.add_model_args,
        sf_cfg.add_default_env_args,
        sf_cfg.add_wandb_args,
        sf_cfg.add_pbt_args,
    ):
        add(parser)
    return {action.dest: action for action in parser._actions if action.dest != "help"}


def _options(action: argparse.Action) -> dict[str, Any]:
    """What ``add_argument`` needs to make a flag of Sample Factory's again."""
    return {name: getattr(action, name) for name in ("default", "type", "choices", "nargs", "help")}
