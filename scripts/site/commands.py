"""Prints the reference of all commands as Markdown, made from their parsers; needs the environment of training.

python scripts/site/commands.py
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path

from srwm_agents.__main__ import COMMANDS
from srwm_agents.command_help import described, value_name
from srwm_agents.command_line import HelpAll
from srwm_agents.distributed.arguments import UNSUPPORTED_FLAGS, make_distributed_parser
from srwm_agents.integrations.sample_factory.arguments import make_parser

HEAD = """# Commands

`python -m srwm_agents COMMAND` in a checkout (`train` and `eval` are `train_rl.py` and `eval_rl.py` there too),
`srwm COMMAND` once installed. Each has `--help`; flags may be spelt with hyphens. A flag that would change nothing, or
whose value is not allowed, ends the command with one line that says so. Where a default depends on the machine, it is
the one that built this page: `--num_workers` is its number of cores.
"""


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command's name and parser, sub-commands as commands of their own."""
    special = {"train": make_parser, "distributed": make_distributed_parser}
    for name, command in COMMANDS.items():
        if name in special:
            yield name if name == "train" else f"{name} train", special[name]()
            continue
        module = import_module(command.function.split(":")[0])
        yield from _leaves(name, module.make_parser())


def _leaves(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, sub in action.choices.items():
            yield from _leaves(f"{name} {word}", sub)


def section(name: str, parser: argparse.ArgumentParser, known: Collection[str] = ()) -> Iterator[str]:
    """The lines of a command's section; flags in ``known`` are those of a section above."""
    yield f"## {name}\n"
    yield from (f"{line}\n" for line in (parser.description or "").splitlines() if line.strip())
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if _is_shown(action) and action.dest not in known]
        if not actions:
            continue
        title = group.title or ""
        yield f"### {name}: {title}\n" if title not in ("options", "positional arguments") else ""
        yield "| flag | what it is |"
        yield "|---|---|"
        for action in actions:
            yield f"| {_flag(action)} | {_cell(described(action))} |"
        yield ""


def _is_shown(action: argparse.Action) -> bool:
    return action.help is not argparse.SUPPRESS and not isinstance(action, (argparse._HelpAction, HelpAll))


def _flag(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = "" if action.nargs == 0 else f" {value_name(action)}"
    return f"`{action.option_strings[0]}{value}`"


def _code(name: str) -> str:
    return f"`--{name}`"


def _cell(text: str) -> str:
    text = text.replace(f"{Path.cwd()}/", "").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return text.replace("_", "\\_")


def main() -> None:
    print(HEAD)
    training = {action.dest for action in make_parser()._actions}
    for name, parser in parsers():
        print("\n".join(section(name, parser, training if name == "distributed train" else ())))
        if name == "distributed train":
            print(f"All other flags of [train](#train) are there but for {', '.join(map(_code, UNSUPPORTED_FLAGS))}.\n")


if __name__ == "__main__":
    main()
