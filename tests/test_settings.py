"""Dataclass fields become flags, and flags become the dataclass again."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from srwm_agents.cores.config import CoreConfig, core_setting_names, core_settings_of
from srwm_agents.settings import add_dataclass_flags, check_choices, from_flags, setting


@dataclass(frozen=True)
class Example:
    width: int = setting(3, "Width")
    rate: float | None = setting(None, "Rate")
    on: bool = setting(False, "Switch")
    off: bool = setting(True, "Other switch")
    kind: str = setting("a", "Kind", ("a", "b"))
    folder: Path = setting(Path("here"), "Folder")


def parse(*arguments: str, **options) -> Example:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_dataclass_flags(parser, Example, **options)
    return from_flags(Example, parser.parse_args(arguments))


def test_flags_make_the_dataclass() -> None:
    assert parse() == Example()
    given = parse("--width=5", "--rate=0.5", "--on", "--off", "False", "--kind=b", "--folder=there")
    assert given == Example(5, 0.5, True, False, "b", Path("there"))
    assert parse("--on", "True", "--off=no") == Example(on=True, off=False)


def test_names_and_defaults() -> None:
    assert parse("--width=4", names=["width", "on"], defaults={"on": True}) == Example(width=4, on=True)
    with pytest.raises(argparse.ArgumentError):
        parse("--kind=c")
    with pytest.raises(ValueError, match="Example has no field 'wide', allowed: width, rate"):
        parse(names=["wide"])
    with pytest.raises(ValueError, match="kind is 'c', allowed: a, b"):
        check_choices(Example(kind="c"))


@pytest.mark.parametrize("text", ["maybe", "2", ""])
def test_a_switch_is_true_or_false(text: str) -> None:
    with pytest.raises(argparse.ArgumentError, match="is neither True nor False"):
        parse(f"--on={text}")


def test_core_settings_are_flags() -> None:
    parser = argparse.ArgumentParser()
    add_dataclass_flags(parser, CoreConfig, names=core_setting_names())
    args = parser.parse_args(["--input_norm", "True", "--hidden_size", "16", "--backend=naive"])
    config = CoreConfig(input_size=3, **core_settings_of(vars(args)))
    assert config == CoreConfig(3, hidden_size=16, input_norm=True, backend="naive")
    assert "input_size" not in core_setting_names()
    assert set(core_setting_names()) - set(core_setting_names(exclude=("dropout",))) == {"dropout"}
