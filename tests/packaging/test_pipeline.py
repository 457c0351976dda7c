"""The wheel in a project with gymnasium 1.x, NumPy 2 and the newest Stable-Baselines3: nothing there changes.

What tests/packaging/check_pipeline.sh does with newly installed packages alone, in less time: PyTorch, and what else
does not depend on the versions of gymnasium and NumPy, is linked from this process's environment.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALLED = ("gymnasium>=1.1,<2", "numpy>=2", "stable-baselines3>=2.9")
SHARED = ("torch",)
NOT_SHARED = ("numpy", "safetensors")


class Project:
    """A virtual environment with those packages and a top-level package ``envs`` of its own."""

    def __init__(self, folder: Path, run_pip, pip_install, package_files, their_wheel: Path) -> None:
        self.folder, self.venv, self._pip, self._install = folder, folder / "venv", run_pip, pip_install
        venv.create(self.venv, symlinks=True, with_pip=False)
        (self.packages,) = self.venv.glob("lib/python*/site-packages")
        # Beside the virtual environment, not in it: what lies elsewhere, pip does not remove.
        linked = folder / "linked"
        linked.mkdir()
        for file in package_files(*SHARED, without=NOT_SHARED):
            (linked / file.name).symlink_to(file)
        (self.packages / "linked.pth").write_text(f"{linked}\n")
        self.install(*INSTALLED)
        self.install("--no-deps", "--no-index", their_wheel)

    def install(self, *arguments: str | Path) -> None:
        self._install(self.venv, *arguments)

    def pip(self, *arguments: str) -> str:
        pip = self._pip(self.venv, *arguments)
        assert pip.returncode == 0, pip.stderr
        return pip.stdout

    def versions(self) -> dict[str, str]:
        """Every package that Python finds there, with its version."""
        lines = [line.split("==") for line in self.pip("list", "--format=freeze").splitlines()]
        return {name.lower().replace("_", "-"): version for name, version in lines}

    def files(self) -> set[Path]:
        return {file for file in self.packages.rglob("*") if file.is_file() and file.suffix != ".pyc"}

    def run(self, *arguments: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [self.venv / "bin/python", *arguments]
        result = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert result.returncode == 0, result.stderr
        return result.stdout


def added(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Packages that only the second has; the others must not have changed."""
    assert {name: after.get(name) for name in before} == before
    return set(after) - set(before)


@pytest.fixture(scope="session")
def their_wheel(build_distribution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a project with a package ``envs``, as every repository of reinforcement learning has one."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "envs").mkdir()
    (folder / "envs/__init__.py").write_text("WHOSE = 'theirs'\n")
    project = '[project]\nname = "their-project"\nversion = "1.0"\n[tool.setuptools]\npackages = ["envs"]\n'
    (folder / "pyproject.toml").write_text(project)
    return build_distribution("wheel", folder, folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_changes_in_a_project_with_newer_packages(
    built, their_wheel, run_pip, pip_install, package_files, tmp_path
) -> None:
    project = Project(tmp_path, run_pip, pip_install, package_files, their_wheel)
    before, files = project.versions(), project.files()
    assert before["gymnasium"] >= "1."
    assert before["numpy"] >= "2."
    assert not {"safetensors", "srwm-agents", "gym", "sample-factory"} & set(before)

    project.install(built.wheel)
    alone = project.versions()
    assert added(before, alone) == {"srwm-agents", "safetensors"}
    assert "works on Python" in project.run(HERE / "use_base.py")

    project.install(f"{built.wheel}[sb3]")
    assert added(alone, project.versions()) == {"sb3-contrib"}
    assert f"gymnasium {before['gymnasium']}, NumPy {before['numpy']}" in project.run(HERE / "use_sb3.py")
    whose = "import envs, srwm_agents.envs; print(envs.WHOSE, srwm_agents.envs.__name__)"
    assert project.run("-c", whose).split() == ["theirs", "srwm_agents.envs"]

    project.pip("uninstall", "-q", "-y", "srwm-agents", "safetensors", "sb3-contrib")
    assert project.files() == files
    assert project.run("-c", "import envs; print(envs.WHOSE)").strip() == "theirs"
