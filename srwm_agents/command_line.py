"""What all command lines have in common: the name they go by, one-line errors, flags that may be spelt with hyphens."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from srwm_agents.command_help import HelpFormatter

IN_CHECKOUT = {"train": "train_rl.py", "eval": "eval_rl.py"}
"""Commands that a checkout has scripts for."""


def program(command: str = "") -> str:
    """The name that a command goes by in usage and error messages, in the manner that this process was started in.

    Args:
        command: a name of ``srwm_agents.__main__.COMMANDS``; "" for the program that has them all.

    Returns:
        "train_rl.py" or "eval_rl.py" for the scripts of a checkout; "srwm-train", "srwm-eval" or "srwm COMMAND" for
        installed ones; else, also when another program calls a command's function, "python -m srwm_agents COMMAND".
    """
    started = Path(sys.argv[0]).name.removesuffix(".exe")
    if started in IN_CHECKOUT.values() and command in IN_CHECKOUT:
        return IN_CHECKOUT[command]
    if started in ("srwm-train", "srwm-eval") and command in IN_CHECKOUT:
        return f"srwm-{command}"
    if started in ("srwm", "srwm-train", "srwm-eval"):
        return f"srwm {command}".strip()
    return f"python -m srwm_agents {command}".strip()


def to_type(command: str) -> str:
    """How to start a command in the manner that this process was started in, for a message that proposes it."""
    name = program(command)
    return quoted("python", Path(sys.argv[0]).with_name(name)) if name in IN_CHECKOUT.values() else name


def user_path(text: str) -> Path:
    """The path that a user typed, from the current working directory, with the home folder for ``~``.

    Raises:
        argparse.ArgumentTypeError: it is empty, as a variable of the shell that is not set.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user: a name that begins with ~
        return Path(text)


def writable_folder(path: Path) -> Path:
    """Make a folder that results are to be written to, and see that it can be written; returns ``path``.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        raise OSError(error.errno, f"results cannot be written ({error.strerror})", str(path)) from error
    return path


def quoted(*words: object) -> str:
    """A command line to type, with what the shell would take apart in quotes."""
    return shlex.join(str(word) for word in words)


def reason(error: BaseException) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename is not None else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def tolerate_any_terminal() -> None:
    """Write characters that the terminal's encoding lacks as question marks, where writing them would be an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def fail(message: str, command: str = "", status: int = 1) -> int:
    """Print an error as one line on stderr, after the lines above its last one if it has any; returns ``status``."""
    *above, last = message.strip().splitlines() or [""]
    say("".join(f"{line}\n" for line in above) + f"{program(command)}: error: {last}")
    return status


def say(text: str) -> None:
    """Print to stderr; whether anybody reads it changes nothing."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the flag or value that was probably meant, and status 1.

    Flags have underscores; ``--data-dir`` is taken for ``--data_dir``. Its help is :class:`.HelpFormatter`'s.
    """

    brief_help = False
    """Whether ``--help`` leaves out what only few need, which :class:`HelpAll` shows."""

    def _get_formatter(self) -> argparse.HelpFormatter:
        return HelpFormatter(self.prog, everything=not self.brief_help)

    def error(self, message: str) -> NoReturn:
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            flag = message[len(prefix) :].split()[0].split("=")[0]
            # A flag of another sub-command is no suggestion.
            close = difflib.get_close_matches(flag, self._flags() - {flag}, n=1)
            message = f"unknown flag {flag}" + (f", did you mean {close[0]}?" if close else "")
        say(f"{self.prog}: error: {message} (see --help)")
        sys.exit(1)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            close = difflib.get_close_matches(str(value), [str(choice) for choice in action.choices or ()], n=1)
            error.message += f", did you mean {close[0]}?" if close else ""
            raise

    def _flags(self) -> set[str]:
        """Of this parser and its sub-commands: what a sub-command does not know comes back to this one."""
        flags = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                flags |= {flag for parser in action.choices.values() for flag in parser._flags()}
        return flags

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        return super().parse_known_args(underscored(sys.argv[1:] if args is None else args), namespace)


class HelpAll(argparse.Action):
    """``--help-all``: all of a parser's help, where ``--help`` is brief (:attr:`OneLineParser.brief_help`)."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        if isinstance(parser, OneLineParser):
            parser.brief_help = False
        parser.print_help()
        parser.exit()


def json_object(text: str) -> dict[str, Any]:
    """An argument that is a JSON object, for argparse."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON ({error}), expected one like {{"size": 5}}') from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, expected one like {{"size": 5}}')
    return value


def underscored(arguments: Sequence[str]) -> list[str]:
    """--data-dir=my-images -> --data_dir=my-images, and so on for each of them."""
    return [_underscored(argument) for argument in arguments]


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    flag, sign, value = argument.partition("=")
    return "--" + flag[2:].replace("-", "_") + sign + value
