"""``python -m srwm_agents COMMAND …``: finds the command's module and calls it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "export": ("srwm_agents.integrations.export.command:main", "write a saved agent as ONNX or torch.export"),
    "fewshot": ("srwm_agents.fewshot.command:main", "learn new classes from a few labelled images"),
    "introspective": ("srwm_agents.introspective.command:main", "train Schmidhuber's introspective net of 1993"),
}
"""Name: ("module:function", one line about it). The function takes the rest of the arguments, returns a status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Call the command that the first argument names; returns its exit status."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        lines = "\n".join(f"  {command:<14} {about}" for command, (_, about) in COMMANDS.items())
        print(f"usage: python -m srwm_agents COMMAND … (each has --help)\n\ncommands:\n{lines}")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"python -m srwm_agents: error: unknown command {name!r}, allowed: {', '.join(COMMANDS)}\n")
        return 2
    module, function = COMMANDS[name][0].split(":")
    return getattr(import_module(module), function)(rest)


if __name__ == "__main__":
    sys.exit(main())
