"""The house: imports point one way, nothing happens at import, files tell one story."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_imports_point_one_way() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_importing_the_package_loads_no_framework_and_prints_nothing() -> None:
    code = (
        "import sys, srwm_agents, envs, srwm_agents.ops, srwm_agents.cores, srwm_agents.evaluation\n"
        "heavy = {'sample_factory', 'stable_baselines3', 'sb3_contrib', 'torchrl', 'procgen', 'gym', 'triton', 'ray'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == result.stderr == ""


def test_files_tell_one_story() -> None:
    for file in [*ROOT.glob("srwm_agents/**/*.py"), *ROOT.glob("envs/*.py"), *ROOT.glob("*.py")]:
        limit = 700 if "kernel" in file.name else 420
        assert len(file.read_text().splitlines()) <= limit, file


def test_ruff_is_clean() -> None:
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([ruff, *command, ROOT], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout
