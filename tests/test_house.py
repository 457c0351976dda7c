"""The tree: imports point one way, nothing happens at import, files tell one story, settings are listed once."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from srwm_agents.cores import CoreConfig

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
    for file in [*ROOT.glob("srwm_agents/**/*.py"), *ROOT.glob("*.py")]:
        limit = 700 if "kernel" in file.name else 420
        assert len(file.read_text().splitlines()) <= limit, file


def test_ruff_is_clean() -> None:
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run([ruff, *command, ROOT], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout


GENERAL = {"hidden_size", "num_layers", "num_heads", "ff_size"}
"""Settings whose names other things have too, such as a GRU: only a list of them is a second list."""
SPECIAL = {field.name for field in fields(CoreConfig) if field.metadata["cores"] is not None}
SPECIAL -= GENERAL | {"backend", "rollout_length"}  # an op has the one, the trainer derives the other


def named_settings(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) wherever a program names a core's setting."""
    special = re.compile(rf"\b({'|'.join(SPECIAL)})\b")
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name"):  # variables, attributes, arguments and keywords, definitions
            if getattr(node, field, None) in SPECIAL:
                yield line, getattr(node, field)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((line, name) for name in special.findall(node.value))
            if node.value in GENERAL:
                yield line, node.value
        if isinstance(node, ast.Call):  # a flag that is added, not one that a message mentions
            flags = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            yield from ((line, name) for name in GENERAL if f"--{name}" in flags)
        if isinstance(node, ast.ClassDef):  # a dataclass's fields are annotated names in a class's body
            targets = [entry.target for entry in node.body if isinstance(entry, ast.AnnAssign)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from ((line, name) for name in names if name in GENERAL)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("x = cfg.state_decay", "state_decay"),
        ("make(input_norm=True)", "input_norm"),
        ("def f(beta_mean): ...", "beta_mean"),
        ("add('--unit_keys', False)", "unit_keys"),
        ("raise ValueError(f'{x}: try --state_limit 30')", "state_limit"),
        ("class Settings:\n    query_scale: float = 1", "query_scale"),
        ("class Settings:\n    num_heads: int = 8", "num_heads"),
        ("NAMES = ('hidden_size',)", "hidden_size"),
        ("add('--ff_size', type=int)", "ff_size"),
    ],
)
def test_a_named_setting_is_found(source: str, name: str) -> None:
    assert {found for _, found in named_settings(source)} == {name}
    assert not list(named_settings("self.num_layers = f(hidden_size=3)"))  # a module's own


def test_only_cores_layers_and_recipes_name_a_cores_settings() -> None:
    """Everybody else asks ``CoreConfig``. Ops have arguments of their own, some of the same name."""
    assert {"input_softmax", "state_decay", "detach_state_every_step"} <= SPECIAL
    files = [*ROOT.glob("srwm_agents/**/*.py"), ROOT / "train_rl.py", ROOT / "eval_rl.py"]
    own = [ROOT / "srwm_agents" / name for name in ("cores", "layers", "recipes", "ops")]
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name}"
        for file in files
        if not any(file.is_relative_to(folder) for folder in own)
        for line, name in named_settings(file.read_text())
    ]
    assert not found, "\n".join(found)
