"""The package as it is built and installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("agents", "benchmarks", "docs", "envs", "examples", "experiments", "scripts", "srwm_agents", "tests")


class Built(NamedTuple):
    """What ``python -m build`` makes."""

    sdist: Path
    """The source distribution, unpacked."""
    wheel: Path
    """The wheel, made from it."""


def build(kind: str, source: Path, target: Path) -> Path:
    """Build "wheel" or "sdist" as ``python -m build --no-isolation`` does; returns the file."""
    code = f"from setuptools import build_meta; print('made', build_meta.build_{kind}({str(target)!r}))"
    result = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return target / result.stdout.splitlines()[-1].removeprefix("made ")


@pytest.fixture(scope="session")
def build_distribution() -> Callable[[str, Path, Path], Path]:
    """:func:`build`, for the tests."""
    return build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip(f"setuptools is {version('setuptools')}, building needs at least 77")
    folder = tmp_path_factory.mktemp("built")
    # Building writes into the folder that it builds from, so this is a copy.
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder / "tree")
    archive = build("sdist", folder / "tree", folder)
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    sdist = folder / archive.name.removesuffix(".tar.gz")
    return Built(sdist, build("wheel", sdist, folder))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the wheel into, without what it depends on; scripts are in its ``bin``."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, built.wheel], check=True, capture_output=True)
    return target
