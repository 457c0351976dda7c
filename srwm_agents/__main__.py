"""Sub-commands: ``python -m srwm_agents NAME …``; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "fewshot": ("srwm_agents.fewshot.command:main", "learn new classes from a few labelled images"),
}
"""Name -> (module:function of the remaining arguments that returns the exit status, what it does)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; returns its exit status, 2 for an unknown one."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print("usage: python -m srwm_agents COMMAND …, where COMMAND is one of")
        for command, (_, what) in COMMANDS.items():
            print(f"  {command:14} {what}")
        return 0
    if name not in COMMANDS:
        sys.stderr.write(f"srwm_agents: error: unknown command {name!r}, allowed: {', '.join(COMMANDS)}\n")
        return 2
    module, function = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(module), function)(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
