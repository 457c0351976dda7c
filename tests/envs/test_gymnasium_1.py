"""This folder's tests once more with gymnasium 1.x and NumPy 2, in a virtual environment of their own.

It is made in ``.venv-gymnasium1`` the first time. PyTorch, and what else does not depend on the versions of gymnasium
and NumPy, is linked from this process's environment; the rest is installed with pip.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import gymnasium
import pytest

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-gymnasium1"
INSTALLED = ("gymnasium>=1.1,<2", "numpy>=2", "pillow")
# Procgen's packages ask for NumPy below 2; they work with NumPy 2.
WITHOUT_DEPENDENCIES = (
    *("procgen-mirror==0.10.7", "gym3==0.3.3", "gym==0.26.2", "gym-notices", "cffi", "pycparser"),
    *("imageio", "stable-baselines3>=2.7"),
)
SHARED = ("torch", "safetensors", "setuptools", "pytest", "pytest-timeout", "pandas", "matplotlib", "packaging")
NOT_SHARED = ("numpy", "gymnasium", "pillow")
THE_SAME_IN_BOTH = ("test_upload", "test_the_table_of_modes", "test_a_missing_package")


def environment(package_files: Callable[..., set[Path]], pip_install: Callable[..., None]) -> Path:
    """The Python of the environment, which is made unless it was made of the same packages before."""
    ready = VENV / "ready"
    files = package_files(*SHARED, without=NOT_SHARED)
    content = "\n".join([sys.version, *INSTALLED, *WITHOUT_DEPENDENCIES, *sorted(map(str, files))])
    python = VENV / "bin" / "python"
    if not ready.exists() or ready.read_text() != content:
        venv.create(VENV, clear=True, symlinks=True, with_pip=False)
        pip_install(VENV, *INSTALLED)
        pip_install(VENV, "--no-deps", *WITHOUT_DEPENDENCIES)
        shared = VENV / "shared"
        shared.mkdir()
        for file in files:
            (shared / file.name).symlink_to(file)
        (packages,) = VENV.glob("lib/python*/site-packages")
        (packages / "shared.pth").write_text(f"{shared}\n")
        ready.write_text(content)
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not gymnasium.__version__.startswith("0."), reason="these tests run in gymnasium 1.x already")
def test_everything_here_also_passes_with_gymnasium_1_and_numpy_2(package_files, pip_install) -> None:
    python = environment(package_files, pip_install)
    versions = "import gymnasium, numpy; print(gymnasium.__version__, numpy.__version__)"
    shown = subprocess.run([python, "-c", versions], capture_output=True, text=True, check=True).stdout.split()
    assert [int(version.split(".")[0]) >= least for version, least in zip(shown, (1, 2), strict=True)] == [True, True]
    options = [
        "-q",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "-m",
        "not gpu",
        "-k",
        f"not ({' or '.join(THE_SAME_IN_BOTH)})",
    ]
    run = subprocess.run(
        [python, "-m", "pytest", *options, "tests/envs"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout.splitlines()[-1]
