"""``--help``: each flag with its default and what is allowed, in few lines; what few need is named only."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import pytest

from srwm_agents.command_help import Flag, Shown, default_text, described
from srwm_agents.command_line import HelpAll, OneLineParser
from srwm_agents.settings import Range, add_dataclass_flags, check_ranges, setting


@dataclass(frozen=True)
class Example:
    rate: float = setting(0.5, "Step size. It is Adam's", allowed=Range(0, open_low=True))
    kind: str = setting("a", "Which kind", ("a", "b"))
    size: int | None = setting(None, "Side; default: the image's", allowed=Range(1))
    on: bool = setting(False, "Switch: 100 % or nothing")
    rare: int = setting(3, "What few need", shown=Shown.NAMED)
    unused: int = setting(3, "What nobody needs", shown=Shown.ONLY_IN_ALL)


def parser(brief: bool = False) -> OneLineParser:
    made = OneLineParser(prog="p", allow_abbrev=False)
    made.brief_help = brief
    add_dataclass_flags(made.add_argument_group("subject"), Example)
    made.add_argument("--help-all", "--help_all", action=HelpAll, help="All")
    return made


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_flag_is_described_with_what_is_allowed_and_its_default() -> None:
    text = words(parser().format_help())
    assert "--rate X Step size. It is Adam's; > 0 (default: 0.5)" in text
    assert "--kind NAME Which kind: a, b (default: a)" in text
    assert "--size N Side; ≥ 1; default: the image's --on [BOOL] Switch: 100 % or nothing (default: False)" in text
    assert "--rare N What few need (default: 3) --unused N What nobody needs (default: 3)" in text


def test_brief_help_has_first_sentences_and_names_what_few_need() -> None:
    text = words(parser(brief=True).format_help())
    assert "--rate X Step size; > 0 (default: 0.5)" in text
    assert "and (see --help-all): --rare 3" in text
    assert "few need" not in text
    assert "--unused" not in text


@pytest.mark.parametrize("flag", ["--help-all", "--help_all"])
def test_help_all_describes_everything_and_ends(flag: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser(brief=True).parse_args([flag])
    assert stopped.value.code == 0
    text = words(capsys.readouterr().out)
    assert "What nobody needs" in text
    assert "It is Adam's" in text
    assert "--help_all" not in text


def test_lines_fit_the_terminal_and_a_long_usage_is_short(monkeypatch) -> None:
    for columns in (60, 80, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = parser().format_help().splitlines()
        assert max(map(len, lines)) <= columns
        assert lines[0] == "usage: p [--FLAG VALUE …]"


def test_required_flags_and_positional_arguments_stay_in_the_usage() -> None:
    made = parser()
    made.add_argument("--agent", required=True, help="It")
    made.add_argument("run", nargs="+", metavar="EXP", help="Them")
    usage = made.format_help().splitlines()[0]
    assert usage == "usage: p --agent TEXT EXP [EXP ...] [--FLAG VALUE …]"


@pytest.mark.parametrize(
    ("default", "text"), [(None, "none"), ("", "none"), ([], "none"), ([1, 2], "1 2"), (0, "0"), (1e-6, "1e-06")]
)
def test_defaults_are_as_one_types_them(default, text: str) -> None:
    action = argparse.ArgumentParser().add_argument("--x", action=Flag, default=default, help="X")
    assert default_text(action) == text
    assert described(action) == f"X (default: {text})"


@pytest.mark.parametrize(
    ("allowed", "signs", "inside", "outside"),
    [
        (Range(1), "≥ 1", (1, 5), (0, float("inf"), float("nan"))),
        (Range(0, open_low=True), "> 0", (0.1,), (0,)),
        (Range(0, 1), "0 to 1", (0, 1), (-0.1, 1.1)),
        (Range(0, 1, open_high=True), "≥ 0 and < 1", (0,), (1,)),
        (Range(0, 1, open_low=True), "> 0 and ≤ 1", (1,), (0,)),
        (Range(0, 2**31 - 1), "0 to 2147483647", (2**31 - 1,), (2**31,)),
    ],
)
def test_ranges(allowed: Range, signs: str, inside, outside) -> None:
    assert allowed.signs == signs
    assert all(number in allowed for number in inside)
    assert not any(number in allowed for number in outside)


def test_a_number_out_of_its_range_is_named() -> None:
    check_ranges(Example())
    with pytest.raises(ValueError, match=re.escape("rate is 0, expected above 0")):
        check_ranges(Example(rate=0))
    with pytest.raises(ValueError, match=re.escape("size is 0, expected at least 1")):
        check_ranges(Example(size=0))
