"""Dataclass fields as settings: default, help and allowed values in one place; command-line flags made from them."""

from __future__ import annotations

import argparse
import math
import numbers
import reprlib
import sys
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from srwm_agents.command_help import Flag, Shown
from srwm_agents.command_line import user_path

Config = TypeVar("Config")

_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Range:
    """Allowed numbers; never infinity or NaN."""

    low: float
    high: float = math.inf
    open_low: bool = False
    """Whether ``low`` itself is not allowed."""
    open_high: bool = False
    """Whether ``high`` itself is not allowed."""

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return math.isfinite(value) and above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low}" if self.open_low else f"at least {self.low}"
        if self.high == math.inf:
            return low if self.open_low else f"{low} and finite" if self.low == 0 else low
        if self.open_low or self.open_high:
            return f"{low} and {'below' if self.open_high else 'at most'} {self.high}"
        return f"from {self.low} to {self.high}"

    @property
    def signs(self) -> str:
        """The range for a flag's help: "≥ 1", "0 to 1", "> 0 and ≤ 1"."""
        low = f"{'>' if self.open_low else '≥'} {self.low:g}"
        if self.high == math.inf:
            return low
        if self.open_low or self.open_high:
            return f"{low} and {'<' if self.open_high else '≤'} {self.high:g}"
        return f"{self.low:g} to {self.high:.10g}"


def setting(
    default: Any, help: str, choices: Collection[str] | None = None, *, allowed: Range | None = None, **metadata: Any
) -> Any:
    """A dataclass field that describes itself.

    Args:
        default: the field's; ``dataclasses.MISSING`` for a field that must be given.
        help: one line, for ``--help`` and for whoever reads the dataclass.
        choices: the allowed values; None for any of the field's type.
        allowed: the allowed numbers; None for any of the field's type. None as a value is always allowed.
        metadata: anything else to keep in the field's ``metadata``; ``shown`` (:class:`.command_help.Shown`) says how
            much of its flag ``--help`` shows.
    """
    names = None if choices is None else tuple(choices)
    return field(default=default, metadata={"help": help, "choices": names, "allowed": allowed, **metadata})


def default_of(entry: Field[Any]) -> Any:
    """The default of a dataclass field, made anew if it has a factory; None if it must be given."""
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return None if entry.default is MISSING else entry.default


def check_choices(config: Any) -> None:
    """Raise ``ValueError`` for a field of the dataclass instance ``config`` whose value is none of its choices."""
    for entry in fields(config):
        allowed = entry.metadata.get("choices")
        if allowed and getattr(config, entry.name) not in allowed:
            raise ValueError(f"{entry.name} is {getattr(config, entry.name)!r}, allowed: {', '.join(allowed)}")


def check_ranges(config: Any) -> None:
    """Raise ``ValueError`` for a field of the dataclass instance ``config`` whose number is out of its range."""
    for entry in fields(config):
        value, allowed = getattr(config, entry.name), entry.metadata.get("allowed")
        if allowed is not None and value is not None and value not in allowed:
            raise ValueError(f"{entry.name} is {value}, expected {allowed}")


def check_types(config: Any) -> None:
    """Raise ``ValueError`` for a field of the dataclass instance ``config`` whose value is not of the field's type.

    A whole number is no truth value, floats have to be finite (whole numbers up to 2**53 are floats too), and a list
    will do for a tuple.
    """
    kinds = typing.get_type_hints(type(config))
    for entry in fields(config):
        value = getattr(config, entry.name)
        if not _fits(value, kinds[entry.name]):
            kind = str(getattr(kinds[entry.name], "__name__", kinds[entry.name]))
            finite = "a finite " if kinds[entry.name] is float else ""
            raise ValueError(f"{entry.name} is {reprlib.repr(value)}, expected {finite}{kind}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as annotations spell it."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:  # of any length
        return isinstance(value, (tuple, list)) and all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        if isinstance(value, numbers.Integral):  # PyTorch's arithmetic takes no larger ones
            return not isinstance(value, bool) and abs(int(value)) <= 2**53
        real = isinstance(value, numbers.Real)
        return real and -sys.float_info.max <= value <= sys.float_info.max  # pyright: ignore[reportOperatorIssue]
    return isinstance(value, kind)


def add_dataclass_flags(
    parser: argparse._ActionsContainer,
    cls: type[Any],
    *,
    names: Collection[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Add a flag ``--name`` for each field of a dataclass.

    A field's type says how its flag is read: ``bool`` takes ``--name True``, ``--name False`` and a bare ``--name``;
    ``X | None`` is read as X; others are called with the text (int, float, str, Path).

    Args:
        parser: a parser or an argument group.
        cls: the dataclass, with fields made by :func:`setting`.
        names: the fields that get a flag; None for all.
        defaults: values in place of the fields' own defaults.

    Raises:
        ValueError: ``names`` or ``defaults`` has a name that is no field.
    """
    known = {entry.name: entry for entry in fields(cls)}
    for name in (*(names or ()), *(defaults or ())):
        if name not in known:
            raise ValueError(f"{cls.__name__} has no field {name!r}, allowed: {', '.join(known)}")
    kinds = typing.get_type_hints(cls)
    for name, entry in known.items():
        if names is None or name in names:
            default = defaults[name] if defaults and name in defaults else default_of(entry)
            options = {"default": default, "help": entry.metadata.get("help"), **_reading(entry, kinds[name])}
            allowed = entry.metadata.get("allowed")
            options["allowed"] = allowed.signs if allowed else ""
            options["shown"] = entry.metadata.get("shown", Shown.DESCRIBED)
            parser.add_argument(f"--{name}", action=Flag, **options)


def from_flags(cls: type[Config], args: argparse.Namespace) -> Config:
    """The dataclass whose flags were parsed; fields without a flag keep their defaults."""
    given = vars(args)
    return cls(**{entry.name: given[entry.name] for entry in fields(cls) if entry.name in given})  # type: ignore[arg-type]


def boolean(text: str) -> bool:
    """Read ``True`` or ``False`` (also yes, no, 1, 0, in any case)."""
    if text.lower() not in _TRUTHS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return _TRUTHS[text.lower()]


def _reading(entry: Field[Any], kind: Any) -> dict[str, Any]:
    """How argparse reads the flag of a field of type ``kind``."""
    if isinstance(kind, types.UnionType):
        kind = next(member for member in kind.__args__ if member is not types.NoneType)
    if kind is bool:
        return {"type": boolean, "nargs": "?", "const": True, "metavar": "BOOL"}
    if choices := entry.metadata.get("choices"):
        return {"choices": choices}
    return {"type": user_path if kind is Path else kind}
