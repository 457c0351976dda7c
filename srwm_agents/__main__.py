"""Command-line dispatcher: ``python -m srwm_agents COMMAND …``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple


class Command(NamedTuple):
    """A command's entry point and optional dependencies."""

    function: str
    """ "module:function", which takes the remaining arguments and returns the exit status."""
    about: str
    """Help text, one line."""
    extra: str = ""
    """The extra of this package that it needs, if any."""
    modules: tuple[str, ...] = ()
    """The modules that it needs from that extra."""


COMMANDS = {
    "export": Command("srwm_agents.integrations.export.command:main", "write a saved agent as ONNX or torch.export"),
    "fewshot": Command("srwm_agents.fewshot.command:main", "learn new classes from a few labelled images"),
    "introspective": Command("srwm_agents.introspective.command:main", "train Schmidhuber's introspective net of 1993"),
    "distributed": Command(
        "srwm_agents.distributed.command:main",
        "train with collectors on many machines",
        extra="distributed",
        modules=("torchrl", "ray"),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names; returns its exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14} {command.about}" for name, command in COMMANDS.items())
        print(f"usage: python -m srwm_agents COMMAND … (each has --help)\n\ncommands:\n{lines}")
        return 0
    if name not in COMMANDS:
        return _failed(f"unknown command {name!r}, allowed: {', '.join(COMMANDS)}", 2)
    command = COMMANDS[name]
    if missing := [module for module in command.modules if find_spec(module) is None]:
        install = f"pip install 'srwm-agents[{command.extra}]'"
        return _failed(f"{name} needs {' and '.join(missing)}, which is not installed; install with: {install}", 1)
    module, function = command.function.split(":")
    return getattr(import_module(module), function)(rest)


def _failed(message: str, status: int) -> int:
    sys.stderr.write(f"python -m srwm_agents: error: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
