"""Experiments' folders: where a name leads, which process trains in a folder, and what in it may be deleted."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import time
from _multiprocessing import sem_unlink  # type: ignore[import-not-found]
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import Self

from srwm_agents.files import remove_leftovers

_SEMAPHORE = "semaphore "


class ExperimentError(ValueError):
    """An experiment cannot be found, begun or resumed; the message says why, in one line."""


def experiment_path(train_dir: str | os.PathLike[str], name: str | None) -> Path:
    """The folder of an experiment: ``name`` within ``train_dir``. Nothing is made or read.

    Raises:
        ExperimentError: the name is empty, or leads out of ``train_dir`` or to that folder itself.
    """
    if not name:
        raise ExperimentError("--experiment is empty, expected the name of a folder in --train_dir")
    if any(part in ("", ".", "..") for part in name.split("/")) or not name.isprintable():
        raise ExperimentError(f"--experiment is {name!r}, expected the name of a folder in --train_dir")
    return Path(train_dir) / name


@dataclass(frozen=True)
class Contents:
    """What the experiments of a command consist of, as glob patterns of names in an experiment's folder."""

    made: tuple[str, ...]
    """Everything that training and evaluation make there; beside it a folder may have files of the user's own."""
    marks: tuple[str, ...]
    """What only an experiment of this command has; :attr:`lock`, which those of earlier versions lack, is one too."""
    lock: str
    """The file that is locked while a process trains there; it says which one does."""
    settings: str | None = None
    """The file of the settings, which may be there before anything else is, and whose reader says if it is none."""
    settings_say: str = ""
    """What stands in :attr:`settings` of an experiment, and in no other program's file of that name."""
    leftovers: tuple[str, ...] = ()
    """Files that killed runs of earlier versions left behind."""

    def entries(self, folder: Path) -> list[Path]:
        """What a folder has of an experiment, but for the lock."""
        return sorted({entry for pattern in self.made for entry in folder.glob(pattern)} - {folder / self.lock})

    def is_experiment(self, folder: Path) -> bool:
        """Whether a folder is an experiment's."""
        if any(next(folder.glob(pattern), None) is not None for pattern in (self.lock, *self.marks)):
            return True
        if self.settings is None or not (folder / self.settings).is_file():
            return False
        return self.settings_say in (folder / self.settings).read_text(errors="replace")


TRAINING = Contents(
    made=(
        *("config.json", "sf_log.txt", "git.diff", "curves.csv", "learning_curves.png", "checkpoint_p*", ".summary"),
        "report.html",
        *("crashes", "evaluation", "policy_[0-9]*.json", ".tmp-*"),
        *(f"agent{kind}{more}" for kind in ("", "_best", "_average") for more in ("", "_p[0-9]*", ".old", ".new")),
    ),
    marks=("checkpoint_p*", "sf_log.txt"),
    lock=".training_lock",
    settings="config.json",
    settings_say='"num_envs_per_worker"',
    leftovers=("checkpoint_p*/.*.tmp", "checkpoint_p*/*_temp"),
)
"""Of training an agent (``train``, ``distributed``)."""

FEWSHOT = Contents(
    made=(
        *("settings.json", "checkpoint.pt", "curves.csv", "learning_curve.png", "evaluation", ".summary", ".tmp-*"),
        *(f"agent{kind}{more}" for kind in ("", "_best") for more in ("", ".old", ".new")),
    ),
    marks=("checkpoint.pt",),
    lock=".fewshot_lock",
    settings="settings.json",
    settings_say='"validation_episodes"',
)
"""Of few-shot learning (``fewshot train``)."""


def lock_holder(folder: Path, contents: Contents) -> str | None:
    """The process that trains in a folder, as "process 12 on host"; None if none does. Nothing is changed.

    The lock is asked for as a shared one and given back at once. Where a file system has no locks, none is held.

    Args:
        folder: an experiment's.
        contents: what the experiments of its command consist of.
    """
    try:
        descriptor = os.open(folder / contents.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        holder = os.pread(descriptor, 10_000, 0).decode(errors="replace").partition("\n")[0]
        return holder or "another process"
    finally:
        os.close(descriptor)
    return None


def _lock_for_training(descriptor: int) -> None:
    """Take the lock or raise; tried twice, since :func:`lock_holder` has it for a moment."""
    with contextlib.suppress(OSError):
        flock(descriptor, LOCK_EX | LOCK_NB)
        return
    time.sleep(0.05)
    flock(descriptor, LOCK_EX | LOCK_NB)


def check_present(folder: Path, contents: Contents) -> None:
    """Raise :class:`ExperimentError` if the folder of a run, or its settings, has been deleted or moved.

    For processes that do not hold its lock; a new folder without settings would be of no use.
    """
    if contents.settings is not None and not (folder / contents.settings).is_file():
        raise _gone(folder)


def _gone(folder: Path) -> ExperimentError:
    return ExperimentError(
        f"the experiment's folder {folder} was deleted or moved while training was going on: "
        "nothing can be saved there any more"
    )


class ExperimentFolder:
    """The folder of an experiment, while this process alone trains in it; a context manager.

    The lock is the operating system's (``flock``), so that the end of the process frees it, whatever ended it. Where
    a file system has no locks there is none.

    Example::

        with ExperimentFolder(path, CONTENTS, restart_behavior) as folder:
            folder.begin()
            ...
            folder.check()
            save()
    """

    def __init__(self, path: Path, contents: Contents, restart_behavior: str = "resume") -> None:
        """Name the folder; nothing is made yet.

        Args:
            path: the folder.
            contents: what the experiments of the command consist of.
            restart_behavior: "resume" what is there, move it away ("restart"), or delete it ("overwrite").
        """
        self.path = path
        self.contents = contents
        self.restart_behavior = restart_behavior
        self._descriptor: int | None = None
        self._made = False

    def __enter__(self) -> Self:
        """Make the folder if it is missing, and lock it.

        Raises:
            ExperimentError: another process trains there, or what is there is no experiment.
            OSError: the folder cannot be made or written.
        """
        self._refuse_other_folders()
        self._made = not self.path.exists()
        self._lock()
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder; one in which nothing was begun is removed."""
        if self._is_locked_file():
            marked = any(next(self.path.glob(pattern), None) is not None for pattern in self.contents.marks)
            empty = all(entry.name == self.contents.lock for entry in self.path.iterdir())
            if marked or empty:  # else the lock is what shows that it is an experiment
                with contextlib.suppress(OSError):
                    (self.path / self.contents.lock).unlink()
            if empty and self._made:
                with contextlib.suppress(OSError):
                    self.path.rmdir()
        self._unlock()

    def begin(self) -> None:
        """Make way for the run as ``restart_behavior`` says, and remove what killed runs left behind.

        What is there is deleted or moved here and nowhere else, so this comes when nothing else can fail.
        """
        if self.restart_behavior == "restart" and self.contents.entries(self.path):
            old = self.path.rename(self._name_for_old())
            (old / self.contents.lock).unlink()
            self._unlock()
            self._lock()
        elif self.restart_behavior == "overwrite":
            for entry in self.contents.entries(self.path):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink(missing_ok=True)
        for folder in self._folders():
            remove_leftovers(folder)
        for pattern in self.contents.leftovers:
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise :class:`ExperimentError` if the folder has been deleted, moved or replaced since it was locked."""
        if not self._is_locked_file():
            raise _gone(self.path)

    def _refuse_other_folders(self) -> None:
        if not self.path.is_dir() or self.contents.is_experiment(self.path):
            return
        others = "it has not been touched; name another --experiment"
        if self.restart_behavior != "resume" and next(self.path.iterdir(), None) is not None:
            raise ExperimentError(
                f"--restart_behavior is {self.restart_behavior}, but {self.path} is no experiment: {others}"
            )
        if found := [entry for entry in self.contents.entries(self.path) if entry.name != self.contents.settings]:
            raise ExperimentError(f"{self.path} is no experiment, but has {found[0].name}: {others}")

    def _lock(self) -> None:
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path / self.contents.lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock_for_training(self._descriptor)
            except OSError as error:
                holder = self._content().partition("\n")[0]
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    self._unlock()
                    raise ExperimentError(
                        f"{self.path} is in use: {holder or 'another process'} trains there; "
                        "wait for its end, or name another --experiment"
                    ) from error
            if self._is_locked_file():  # else the folder was moved away, or the lock removed, in between
                break
            self._unlock()
        try:
            self._remove_semaphores()
            os.ftruncate(self._descriptor, 0)
            self._write(f"process {os.getpid()} on {socket.gethostname()}")
        except OSError as error:
            self._unlock()
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def remember_semaphores(self, names: Iterable[str]) -> None:
        """Let a later run remove named semaphores (of :mod:`multiprocessing`), should this one be killed."""
        for name in names:
            self._write(f"{_SEMAPHORE}{name}")

    def _remove_semaphores(self) -> None:
        """Those of the run that had the lock before, if it is dead: the folder may be a copy of one that is in use."""
        holder, *lines = self._content().splitlines() or [""]
        match = re.fullmatch(r"process (\d+) on (.*)", holder)
        if match is None or match[2] != socket.gethostname() or Path("/proc", match[1]).exists():
            return
        for line in lines:
            if line.startswith(_SEMAPHORE):
                with contextlib.suppress(OSError):
                    sem_unlink(line.removeprefix(_SEMAPHORE))

    def _content(self) -> str:
        assert self._descriptor is not None
        return os.pread(self._descriptor, 10_000, 0).decode(errors="replace")

    def _write(self, line: str) -> None:
        assert self._descriptor is not None
        os.pwrite(self._descriptor, f"{line}\n".encode(), os.fstat(self._descriptor).st_size)

    def _unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _is_locked_file(self) -> bool:
        """Whether the locked file is the one in the folder."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), (self.path / self.contents.lock).stat())
        except OSError:
            return False

    def _name_for_old(self) -> Path:
        number = 1
        while (old := self.path.with_name(f"{self.path.name}_old{number:04d}")).exists():
            number += 1
        return old

    def _folders(self) -> Iterator[Path]:
        """The folder, and those in it that the command makes."""
        yield self.path
        for entry in self.contents.entries(self.path):
            if entry.is_dir() and not entry.is_symlink():
                yield entry
