"""What all commands share: paths as typed, words for the shell, errors in one line, output that nobody reads."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from srwm_agents.command_line import OneLineParser, quoted, reason, user_path, writable_folder
from srwm_agents.display import make_console

ROOT = Path(__file__).parents[1]


def test_a_path_is_what_was_typed(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ü")
    for typed, meant in {"~/a b": "/home/ü/a b", "a/../b": "a/../b", "~nobody-here/a": "~nobody-here/a"}.items():
        assert user_path(typed) == Path(meant)
    with pytest.raises(argparse.ArgumentTypeError, match="empty"):
        user_path("")


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    assert writable_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="results cannot be written") as error:
        writable_folder(tmp_path / "file" / "b")
    assert reason(error.value).endswith(f"{tmp_path}/file/b")
    with pytest.raises(OSError, match="results cannot be written"):
        writable_folder(Path("/proc/results"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/a"), "No space left on device: /a"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError("two\nlines"), "two lines"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_reason_is_one_line(error, text: str) -> None:
    assert reason(error) == text


def test_words_are_quoted_for_the_shell() -> None:
    assert quoted("tensorboard", "--logdir", Path("/a b/$x")) == "tensorboard --logdir '/a b/$x'"


def test_wrong_values_and_unknown_flags_have_one_status(capsys) -> None:
    parser = OneLineParser(prog="p")
    parser.add_argument("--number", type=int)
    for arguments in (["--number=x"], ["--nmuber=3"]):
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(arguments)
        assert stopped.value.code == 1
        assert capsys.readouterr().err.count("\n") == 1


UNREAD = """
from srwm_agents.display import make_console
console = make_console()
for number in range(300):
    console.print("a line that nobody reads", number)
open("done", "w").close()
"""


@pytest.mark.parametrize("full", [False, True], ids=["closed pipe", "full disk"])
def test_output_that_cannot_be_written_ends_nothing(tmp_path, full: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    out = os.open("/dev/full", os.O_WRONLY) if full else writer
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", UNREAD], stdout=out, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    )
    assert (result.returncode, (tmp_path / "done").is_file()) == (0, True), result.stderr
    assert result.stderr.count("\n") == 1
    assert "cannot be written" in result.stderr
    for descriptor in {out, writer}:
        os.close(descriptor)


def test_a_console_without_a_descriptor_drops_too(monkeypatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    make_console().print("text")


def test_a_terminal_without_unicode_is_no_error() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [sys.executable, "-m", "srwm_agents", "--help"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout
