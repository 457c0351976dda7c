"""The wheel has the package alone, and asks for three packages; the source distribution can run the tests."""

from __future__ import annotations

import ast
import email
import re
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import srwm_agents
from srwm_agents.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_the_package_alone(built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    about = f"srwm_agents-{srwm_agents.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"srwm_agents", about}
    files = [
        file
        for ending in ("py", "yaml", "c", "h", "html", "css", "js")
        for file in ROOT.glob(f"srwm_agents/**/*.{ending}")
    ]
    package = {str(file.relative_to(ROOT)) for file in files}
    assert package | {"srwm_agents/py.typed"} == {name for name in names if name.startswith("srwm_agents/")}


def test_what_the_wheel_says(built) -> None:
    wheel = zipfile.ZipFile(built.wheel)
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in needed} == {"torch", "numpy", "safetensors"}
    assert not [line for line in needed if re.search(r"<|==|~=", line)]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] == srwm_agents.__version__
    extras = {
        "cpu",
        "procgen",
        "train",
        "eval",
        "inspect",
        "sb3",
        "torchrl",
        "distributed",
        "fewshot",
        "export",
        "hub",
        "all",
        "dev",
    }
    assert extras <= set(metadata.get_all("Provides-Extra") or [])


def required_extras() -> Iterator[tuple[str, str]]:
    """(file, extra) wherever the package checks for one."""
    for file in ROOT.glob("srwm_agents/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name("require"), args=[ast.Constant(str(extra)), *_]):
                    yield str(file.relative_to(ROOT)), extra


def test_every_extra_that_an_error_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [*required_extras(), *((name, command.extra) for name, command in COMMANDS.items())]
    assert len(named) > 10
    assert not [(place, extra) for place, extra in named if extra not in extras]


def test_the_source_distribution_has_what_the_tests_need(built) -> None:
    tree = {part.name for part in built.sdist.iterdir()}
    assert {"tests", "experiments", "docs", "agents", "envs", "examples", "benchmarks", "scripts"} <= tree
    assert {"Makefile", "requirements.txt", "train_rl.py", "eval_rl.py", "CITATION.cff", "pyproject.toml"} <= tree
    for folder in ("tests", "agents", "srwm_agents"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert (built.sdist / file.relative_to(ROOT)).is_file(), file
    assert not list(built.sdist.rglob("*.pyc"))
