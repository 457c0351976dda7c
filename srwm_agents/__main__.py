"""Command-line dispatcher: ``srwm COMMAND …``, the same as ``python -m srwm_agents COMMAND …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from srwm_agents.command_line import fail, program, tolerate_any_terminal
from srwm_agents.extras import MissingPackageError, require


class Command(NamedTuple):
    """A command's entry point and optional dependencies."""

    function: str
    """ "module:function", which takes the remaining arguments and returns the exit status."""
    about: str
    """Help text, one line."""
    extra: str
    """The extra of this package that it needs."""
    modules: tuple[str, ...] = ()
    """The modules that it needs from that extra."""


_TRAINING = ("sample_factory", "gymnasium", "rich", "yaml", "pandas", "scipy", "matplotlib")
_COMPARING = ("rich", "pandas", "matplotlib", "PIL")

COMMANDS = {
    "train": Command("srwm_agents.train_command:main", "train an agent on Procgen", "train", _TRAINING),
    "eval": Command(
        "srwm_agents.evaluation.command:evaluate",
        "evaluate a saved agent on Procgen",
        "eval",
        ("gymnasium", "rich", "pandas", "scipy", "matplotlib", "PIL"),
    ),
    "inspect": Command(
        "srwm_agents.inspect_command:main",
        "play and show what the memory does: page, film, numbers",
        "inspect",
        ("rich", "pandas", "matplotlib", "imageio", "av", "PIL"),
    ),
    "runs": Command("srwm_agents.comparison.listing:main", "list the runs in a folder", "eval", _COMPARING),
    "compare": Command(
        "srwm_agents.comparison.command:main",
        "compare runs: learning curves, scores, settings",
        "eval",
        _COMPARING,
    ),
    "distributed": Command(
        "srwm_agents.distributed.command:main",
        "train with collectors on many machines",
        "distributed",
        (*_TRAINING, "torchrl", "tensordict", "ray"),
    ),
    "fewshot": Command(
        "srwm_agents.fewshot.command:main",
        "learn new classes from a few labelled images",
        "fewshot",
        ("rich", "yaml", "pandas", "matplotlib", "PIL", "tensorboard"),
    ),
    "introspective": Command(
        "srwm_agents.introspective.command:main",
        "train Schmidhuber's introspective net of 1993",
        "introspective",
        ("rich", "matplotlib"),
    ),
    "export": Command(
        "srwm_agents.integrations.export.command:main", "write a saved agent as ONNX or torch.export", "export"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit status."""
    tolerate_any_terminal()
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14} {command.about}" for name, command in COMMANDS.items())
        print(f"usage: {program()} COMMAND … (each has --help)\n\ncommands:\n{lines}")
        return 0
    if name == "--version":
        from srwm_agents import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        return fail(f"unknown command {name!r}, allowed: {', '.join(COMMANDS)}")
    return run(name, rest)


def run(name: str, argv: Sequence[str]) -> int:
    """Run a command of ``COMMANDS``; returns its exit status, 1 where its extra is not installed."""
    tolerate_any_terminal()
    command = COMMANDS[name]
    try:
        require(command.extra, *command.modules)
    except MissingPackageError as error:
        return fail(str(error), name)
    module, function = command.function.split(":")
    return getattr(import_module(module), function)(argv)


def train(argv: Sequence[str] | None = None) -> int:
    """``srwm-train`` and ``train_rl.py``; returns the exit status."""
    return run("train", sys.argv[1:] if argv is None else argv)


def evaluate(argv: Sequence[str] | None = None) -> int:
    """``srwm-eval`` and ``eval_rl.py``; returns the exit status."""
    return run("eval", sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
