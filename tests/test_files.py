"""Atomic file replacement."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from srwm_agents.files import remove_leftovers, write_atomically


@pytest.mark.parametrize("content", ["ä\n", "ä\n".encode(), lambda path: path.write_text("ä\n", encoding="utf-8")])
def test_text_bytes_and_functions_are_written(tmp_path: Path, content) -> None:
    file = tmp_path / "new" / "folder" / "a.txt"
    for _ in range(2):
        assert write_atomically(file, content) == file
        assert file.read_bytes() == "ä\n".encode()
    assert list(file.parent.iterdir()) == [file]


def test_a_function_sees_the_ending_and_an_empty_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "curve.png"
    file.write_text("old")

    def write(path: Path) -> None:
        assert (path.parent, path.suffix) == (tmp_path, ".png")
        assert path != file
        assert file.read_text() == "old"
        assert path.stat().st_size == 0
        path.write_text("new")

    write_atomically(file, write)
    assert file.read_text() == "new"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_new_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        file = write_atomically(tmp_path / "a", "content")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    file = write_atomically(tmp_path / "a", "old")

    def write(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(file, write)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_content_is_on_the_disk_before_its_name_and_both_before_the_end(tmp_path: Path, monkeypatch) -> None:
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (events.append("replace"), replace(old, new)))
    write_atomically(tmp_path / "a", "content")
    temporary, moved, folder = events
    assert Path(temporary).parent == tmp_path
    assert Path(temporary).name.startswith(".tmp-")
    assert (moved, folder) == ("replace", str(tmp_path))


def test_a_kill_anywhere_leaves_the_old_or_the_new_and_leftovers_go(
    tmp_path: Path, kill_everywhere: Callable[..., int]
) -> None:
    file = tmp_path / "a"
    found, leftovers = [], []

    def check() -> None:
        found.append(file.read_text())
        leftovers.append(len(list(tmp_path.iterdir())) - 1)
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [file]

    kill_everywhere(lambda: write_atomically(file, "old"), lambda: write_atomically(file, "new"), check)
    assert sorted(set(found)) == ["new", "old"]
    assert found == sorted(found, reverse=True)
    assert set(leftovers) == {0, 1}


def test_what_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("half")
        remove_leftovers(tmp_path)
        path.write_text("whole")

    assert write_atomically(tmp_path / "a", write).read_text() == "whole"


def test_what_others_named_is_no_leftover(tmp_path: Path) -> None:
    names = [".tmp-notes", "tmp-01234567-a", ".tmp-0123456-a", ".a.tmp"]
    for name in names:
        (tmp_path / name).write_text("kept")
    (tmp_path / ".tmp-01234567-a").write_text("half")
    remove_leftovers(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
