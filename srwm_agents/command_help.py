"""``--help`` of all commands: flags by subject, each with its default and what is allowed, in few lines."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

_LONG_USAGE = 6
"""From so many optional flags on, the usage line does not list them."""
_VALUES = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""Placeholders of flags' values; a type that is none of these has "VALUE"."""
_READERS = {
    **dict.fromkeys(("str2bool", "boolean"), "BOOL"),
    **dict.fromkeys(("user_path", "absolute"), "PATH"),
    "json_object": "JSON",
    "preset": "NAME",
}
"""The same for functions that read a value, by their names."""
_TEXT_COLUMN, _FURTHER_COLUMN, _NARROWEST = 26, 8, 40
"""Where a flag's text begins, where its further lines do, and the least width of a line."""


class Shown(Enum):
    """How much of a flag ``--help`` shows; ``--help-all`` describes every flag."""

    DESCRIBED = 0
    NAMED = 1
    """Its name and default, in the last paragraph of its subject."""
    ONLY_IN_ALL = 2


class Flag(argparse._StoreAction):
    """A flag with a value, and what its help says beside the text: ``add_argument(…, action=Flag, allowed=…)``.

    Args:
        allowed: the allowed values in words; "" for any of the flag's type, or where ``choices`` says it.
        shown: how much of the flag ``--help`` shows.
        default_text: the default in words, where it depends on something; "" for what the default is.
    """

    def __init__(
        self,
        *args: Any,
        allowed: str = "",
        shown: Shown = Shown.DESCRIBED,
        default_text: str = "",
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.allowed, self.shown, self.default_text = allowed, shown, default_text


class HelpFormatter(argparse.HelpFormatter):
    """Describes a flag as "text; what is allowed (default: value)", and leaves out of the usage line what it repeats.

    Args:
        prog: the command's name.
        everything: describe the flags, too, that are not :attr:`Shown.DESCRIBED`, and with all of their text; else
            the first sentence of a flag's text has to do where there is more.
        width: of a line, in characters; None for the terminal's.
    """

    def __init__(self, prog: str, everything: bool = True, width: int | None = None) -> None:
        super().__init__(prog, max_help_position=_TEXT_COLUMN, width=width)
        self.everything = everything

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        actions = [action for action in actions if action.help is not argparse.SUPPRESS]
        if self.everything:
            super().add_arguments(actions)
            return
        described = [action for action in actions if shown(action) is Shown.DESCRIBED]
        named = [action for action in actions if shown(action) is Shown.NAMED]
        super().add_arguments(described)
        if named:
            self._add_item(self._names, [named, "and (see --help-all)" if described else "see --help-all"])

    def add_usage(self, usage: str | None, actions: Iterable[argparse.Action], groups: Any, prefix: Any = None) -> None:
        actions = list(actions)
        optional = [action for action in actions if action.option_strings and not action.required]
        if usage is None and len(optional) > _LONG_USAGE:
            needed = [action for action in actions if action not in optional]
            words = [self._format_usage(None, needed, [], "").strip(), "[--FLAG VALUE …]"]
            usage = " ".join(words).replace("%", "%%")
        super().add_usage(usage, actions, groups, prefix)

    def _names(self, actions: Sequence[argparse.Action], title: str) -> str:
        """The paragraph of flags that are named only, each with its default."""
        # A flag and its value stay on one line.
        flags = [f"{action.option_strings[-1]} {default_text(action)}".replace(" ", "\0") for action in actions]
        text = textwrap.fill(
            f"{title}: {', '.join(flags)}",
            max(self._width, _NARROWEST),
            initial_indent="  ",
            subsequent_indent=" " * _FURTHER_COLUMN,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return text.replace("\0", " ") + "\n"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap each line of a description by itself, so that a list stays one."""
        filled = []
        for line in text.splitlines():
            further = indent + (" " * 4 if line.startswith(" ") else "")
            filled.append(textwrap.fill(line, width, initial_indent=indent, subsequent_indent=further))
        return "\n".join(filled)

    def _format_action(self, action: argparse.Action) -> str:
        """The flag, and its text from the same column on; further lines are only a little indented, to be few."""
        head = "  " + self._format_action_invocation(action)
        subactions = list(self._iter_indented_subactions(action))
        if subactions or not action.help:
            return super()._format_action(action)
        text = textwrap.fill(
            f"{head}  ".ljust(_TEXT_COLUMN) + self._expand_help(action),
            max(self._width, _NARROWEST),
            subsequent_indent=" " * _FURTHER_COLUMN,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return text + "\n"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.option_strings and action.nargs == 0:  # --help-all is --help_all as well
            names = [name for name in action.option_strings if name != "--help_all"]
            return ", ".join(names)
        return super()._format_action_invocation(action)

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return value_name(action)

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        # Choices stand in the text, which can be wrapped.
        if action.metavar is None and action.choices is not None and action.option_strings:
            return lambda size: (default_metavar,) * size
        return super()._metavar_formatter(action, default_metavar)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return described(action, self.everything).replace("%", "%%")


def shown(action: argparse.Action) -> Shown:
    """How much of a flag ``--help`` shows."""
    return getattr(action, "shown", Shown.DESCRIBED)


def value_name(action: argparse.Action) -> str:
    """The placeholder of a flag's value in its help."""
    if action.choices is not None:
        return "NAME"
    if action.type is None:
        return "TEXT"
    kind = action.type
    if kind in _VALUES:
        return _VALUES[kind]  # type: ignore[index]
    name = getattr(kind, "__name__", "").strip("_")
    return _READERS.get(name, "VALUE")


def described(action: argparse.Action, everything: bool = True) -> str:
    """A flag's text, what is allowed, and its default, in one paragraph.

    Args:
        action: the flag.
        everything: all of the text; else its first sentence.
    """
    text = " ".join((action.help or "").split()).rstrip(".")
    if not everything:
        text = re.split(r"(?<=[\w)'])\. (?=[A-Z])", text)[0]
    allowed = getattr(action, "allowed", "")
    if action.choices is not None and action.option_strings:
        names = ", ".join(map(str, action.choices))
        allowed = f"; one of {names}" if re.search("[:;.,]", text) else f": {names}"
    elif allowed:
        allowed = f"; {allowed}"
    about, stated, default = text.rpartition("; default:")
    text = f"{about}{allowed}{stated}{default}" if stated else text + allowed
    if not action.option_strings or action.required or action.default is argparse.SUPPRESS or "default:" in text:
        return text
    return f"{text} (default: {default_text(action)})"


def default_text(action: argparse.Action) -> str:
    """A flag's default as one types it; "none" for an empty one, "off" for a switch's."""
    default = action.default
    if in_words := getattr(action, "default_text", ""):
        return in_words
    if action.nargs == 0:
        return "on" if default else "off"
    if default is None or default in ("", []):
        return "none"
    return " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
