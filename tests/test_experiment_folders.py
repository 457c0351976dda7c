"""Experiments' folders: names, the lock, and what is deleted or moved."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from _multiprocessing import SemLock  # type: ignore[import-not-found]
from pathlib import Path

import pytest

from srwm_agents.experiment_folders import Contents, ExperimentError, ExperimentFolder, check_present, experiment_path

ROOT = Path(__file__).parents[1]
CONTENTS = Contents(
    made=("settings.json", "checkpoints", "agent", ".tmp-*"),
    marks=("checkpoints",),
    lock=".lock",
    settings="settings.json",
    settings_say="of ours",
    leftovers=("checkpoints/.*.tmp",),
)


def make_experiment(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "1").write_text("weights")
    (folder / "settings.json").write_text("of ours")
    return folder


def contents_of(folder: Path) -> set[str]:
    return {str(entry.relative_to(folder)) for entry in folder.rglob("*")}


@pytest.mark.parametrize("name", ["", None, ".", "..", "/", "/tmp/e", "a/..", "../e", "a/../../b", "a//b", "a/", "e\n"])
def test_names_that_lead_out_of_train_dir_are_refused(tmp_path: Path, name) -> None:
    with pytest.raises(ExperimentError, match="--experiment is"):
        experiment_path(tmp_path, name)


@pytest.mark.parametrize("name", ["e", "größe 2", "group/run", "..e", "$x", "[b]", "~"])
def test_other_names_are_folders_in_train_dir(tmp_path: Path, name: str) -> None:
    assert experiment_path(tmp_path, name) == tmp_path / name


def test_overwriting_deletes_what_training_made_and_nothing_else(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "e")
    (folder / "notes.txt").write_text("thesis")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("")
    (folder / "agent").symlink_to(tmp_path / "elsewhere")
    with ExperimentFolder(folder, CONTENTS, "overwrite") as opened:
        assert (folder / "settings.json").is_file()
        opened.begin()
        assert contents_of(folder) == {"notes.txt", ".lock"}
    assert (tmp_path / "elsewhere" / "precious").is_file()


@pytest.mark.parametrize("behavior", ["overwrite", "restart"])
def test_a_folder_that_is_no_experiment_is_left_alone(tmp_path: Path, behavior: str) -> None:
    folder = tmp_path / "agents"
    (folder / "agent").mkdir(parents=True)
    (folder / "settings.json").write_text("of another program")
    before = contents_of(tmp_path)
    with pytest.raises(ExperimentError, match="is no experiment"), ExperimentFolder(folder, CONTENTS, behavior):
        pass
    with pytest.raises(ExperimentError, match="is no experiment, but has agent"), ExperimentFolder(folder, CONTENTS):
        pass
    assert contents_of(tmp_path) == before


def test_restarting_moves_everything_away(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "e")
    (folder / "notes.txt").write_text("")
    before = contents_of(folder)
    for number in (1, 2):
        with ExperimentFolder(folder, CONTENTS, "restart") as opened:
            opened.begin()
            assert contents_of(folder) == {".lock"}
            opened.check()
            with pytest.raises(ExperimentError, match="is in use"), ExperimentFolder(folder, CONTENTS):
                pass
            make_experiment(folder)
        assert (tmp_path / f"e_old{number:04d}").is_dir()
    assert contents_of(tmp_path / "e_old0001") == before


def test_one_that_fails_before_anything_begins_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ExperimentFolder(tmp_path / "new", CONTENTS):
        raise RuntimeError
    assert not (tmp_path / "new").exists()
    (tmp_path / "users").mkdir()
    with pytest.raises(RuntimeError), ExperimentFolder(tmp_path / "users", CONTENTS):
        raise RuntimeError
    assert (tmp_path / "users").is_dir()
    folder = make_experiment(tmp_path / "e")
    before = contents_of(folder)
    with pytest.raises(RuntimeError), ExperimentFolder(folder, CONTENTS, "overwrite"):
        raise RuntimeError
    assert contents_of(folder) == before


HOLD = """
import sys, time
from pathlib import Path
from srwm_agents.experiment_folders import Contents, ExperimentFolder
with ExperimentFolder(Path(sys.argv[1]), Contents(("a",), ("a",), ".lock")) as folder:
    folder.begin()
    folder.remember_semaphores(sys.argv[2:])
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed_and_then_cleans_up(tmp_path: Path) -> None:
    name = f"/mp-test{os.getpid()}"
    SemLock(0, 1, 1, name, False)  # it stays in /dev/shm, as that of a run whose whole process group is killed
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "e"), name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    contents = Contents(("a", ".tmp-*"), ("a",), ".lock")
    with pytest.raises(ExperimentError, match=f"is in use: process {first.pid} on "):
        ExperimentFolder(tmp_path / "e", contents).__enter__()
    shutil.copytree(tmp_path / "e", tmp_path / "copy")
    with ExperimentFolder(tmp_path / "copy", contents):
        assert Path("/dev/shm", f"sem.{name.removeprefix('/')}").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    (tmp_path / "e" / ".tmp-01234567-x").write_text("half")
    with ExperimentFolder(tmp_path / "e", contents) as folder:
        folder.begin()
        assert contents_of(tmp_path / "e") == {".lock"}
    assert not Path("/dev/shm", f"sem.{name.removeprefix('/')}").exists()


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "e")
    before = contents_of(folder)
    for name in (".tmp-01234567-settings.json", "checkpoints/.tmp-01234567-2", "checkpoints/.2.tmp"):
        (folder / name).write_text("half")
    with ExperimentFolder(folder, CONTENTS) as opened:
        opened.begin()
    assert contents_of(folder) == before


@pytest.mark.parametrize("lose", [shutil.rmtree, lambda folder: folder.rename(folder.with_name("moved"))])
def test_a_folder_that_is_lost_while_it_is_used_is_noticed(tmp_path: Path, lose) -> None:
    folder = make_experiment(tmp_path / "e")
    with ExperimentFolder(folder, CONTENTS) as opened:
        opened.check()
        check_present(folder, CONTENTS)
        lose(folder)
        for again in (False, True):
            if again:
                folder.mkdir()
            with pytest.raises(ExperimentError, match="was deleted or moved"):
                opened.check()
            with pytest.raises(ExperimentError, match="was deleted or moved"):
                check_present(folder, CONTENTS)


def test_errors_name_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), ExperimentFolder(tmp_path / "file" / "e", CONTENTS):
        pass
    with pytest.raises(OSError, match="e"), ExperimentFolder(tmp_path / ("e" * 300), CONTENTS):
        pass
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


@pytest.mark.parametrize("behavior", ["restart", pytest.param("overwrite", marks=pytest.mark.slow)])
def test_a_start_that_is_killed_anywhere_can_be_made_again(tmp_path: Path, kill_everywhere, behavior: str) -> None:
    folder = tmp_path / "e"

    def prepare() -> None:
        for old in tmp_path.iterdir():
            shutil.rmtree(old)
        make_experiment(folder)
        (folder / "notes.txt").write_text("thesis")

    def begin() -> None:
        with ExperimentFolder(folder, CONTENTS, behavior) as opened:
            opened.begin()

    def check() -> None:
        begin()
        assert [file.read_text() for file in tmp_path.rglob("notes.txt")] == ["thesis"]
        kept = [file.read_text() for file in tmp_path.rglob("checkpoints/1")]
        assert kept == ([] if behavior == "overwrite" else ["weights"])

    assert kill_everywhere(prepare, begin, check) > 5
