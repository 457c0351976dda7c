"""The same calls in gymnasium 0.29 and 1.x: this folder's tests run in both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.envs.registration
import pytest

from srwm_agents.envs import registration as srwm_registration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def gymnasium_1() -> bool:
    """Whether it is gymnasium 1.x."""
    return not gymnasium.__version__.startswith("0.")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our environments as this checkout registers them, whatever version of us is installed here."""
    others = {name: spec for name, spec in gymnasium.registry.items() if not name.startswith("srwm/")}
    monkeypatch.setattr(gymnasium.envs.registration, "registry", others)
    srwm_registration.register()


@pytest.fixture
def make_vec(registered: None, gymnasium_1: bool) -> Callable[..., Any]:
    """``make_vec(id, num_envs, **options)``: our own vector environment from gymnasium.make_vec."""

    def make(name: str, num_envs: int, **options: Any) -> Any:
        if gymnasium_1:
            return gymnasium.make_vec(name, num_envs, **options)
        return gymnasium.make_vec(name, num_envs, vectorization_mode="custom", vector_kwargs=options)

    return make


@pytest.fixture
def run_program() -> Callable[..., tuple[str, str]]:
    """``run_program(code, *folders)``: what a program prints on stdout and stderr, with ``folders`` on its path."""

    def run(code: str, *folders: Path) -> tuple[str, str]:
        path = os.pathsep.join(map(str, [ROOT, *folders]))
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return process.stdout.strip(), process.stderr

    return run
