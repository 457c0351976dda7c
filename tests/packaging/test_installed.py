"""The installed wheel: what it needs, how long its import takes, and the names of its programs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from srwm_agents.command_line import program, to_type

HERE = Path(__file__).parent
# Modules that are found are Python's own and those of the list, and no others: as if nothing else were installed.
ONLY = """
import runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

allowed, *sys.argv = sys.argv[1].split(","), *sys.argv[2:]

class Only:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        standard = top in sys.stdlib_module_names or top.startswith("_sysconfigdata")  # whose name is the platform's
        return PathFinder.find_spec(name, path, target) if top in allowed or standard else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Only]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def with_dependencies(*names: str) -> set[str]:
    """Distributions and, as far as they are installed, all that they need."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        found.add(name)
        waiting += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def run(installed: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=installed, env=environment, capture_output=True, text=True, check=False
    )


def test_torch_numpy_and_safetensors_are_all_that_is_needed(installed) -> None:
    distributions = with_dependencies("torch", "numpy", "safetensors")
    assert not distributions & {"gymnasium", "pandas", "rich", "pyyaml", "scipy", "matplotlib"}
    modules = {"srwm_agents"} | {
        module
        for module, owners in packages_distributions().items()
        if distributions & {owner.lower().replace("_", "-") for owner in owners}
    }
    result = run(installed, "-c", ONLY, ",".join(modules), HERE / "use_base.py")
    assert result.returncode == 0, result.stderr
    assert "works on Python" in result.stdout


def test_import_takes_no_time_and_no_torch(installed) -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import srwm_agents\n"
        "print(time.perf_counter() - began, srwm_agents.__file__); assert 'torch' not in sys.modules"
    )
    results = [run(installed, "-c", code) for _ in range(3)]
    assert all(result.returncode == 0 for result in results), results[0].stderr
    assert all(str(installed) in result.stdout for result in results)
    assert min(float(result.stdout.split()[0]) for result in results) < 0.3


@pytest.mark.parametrize(
    ("started", "command", "name", "typed"),
    [
        ("/x/train_rl.py", "train", "train_rl.py", "python /x/train_rl.py"),
        ("train_rl.py", "eval", "eval_rl.py", "python eval_rl.py"),
        ("train_rl.py", "fewshot", "python -m srwm_agents fewshot", "python -m srwm_agents fewshot"),
        ("/bin/srwm-train", "train", "srwm-train", "srwm-train"),
        ("/bin/srwm-train", "eval", "srwm-eval", "srwm-eval"),
        ("/bin/srwm-eval.exe", "eval", "srwm-eval", "srwm-eval"),
        ("/bin/srwm-eval", "fewshot", "srwm fewshot", "srwm fewshot"),
        ("/bin/srwm", "train", "srwm train", "srwm train"),
        ("/bin/srwm", "", "srwm", "srwm"),
        ("/x/srwm_agents/__main__.py", "eval", "python -m srwm_agents eval", "python -m srwm_agents eval"),
        ("my_notebook.py", "train", "python -m srwm_agents train", "python -m srwm_agents train"),
    ],
)
def test_a_command_has_the_name_that_it_was_started_by(monkeypatch, started, command, name, typed) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert (program(command), to_type(command)) == (name, typed)


def test_console_scripts_call_themselves_by_their_names(installed) -> None:
    scripts = {file.name for file in (installed / "bin").iterdir() if file.is_file()}
    assert scripts == {"srwm", "srwm-train", "srwm-eval"}
    for script, flags, expected in (
        ("srwm", ["--help"], "usage: srwm COMMAND …"),
        ("srwm", ["trian"], "srwm: error: unknown command 'trian', allowed: train"),
        ("srwm-eval", ["--episods", "3"], "srwm-eval: error: unknown flag --episods, did you mean --episodes?"),
    ):
        result = run(installed, installed / "bin" / script, *flags)
        assert (result.stdout + result.stderr).startswith(expected), result.stdout + result.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("srwm-train", "train"),
        ("srwm-eval", "eval"),
        ("srwm train", "train"),
        ("srwm fewshot", "fewshot"),
        ("srwm introspective", "introspective"),
        ("srwm distributed", "distributed"),
    ],
)
def test_a_command_without_its_extra_says_so_in_one_line(installed, command: str, extra: str) -> None:
    script, *arguments = command.split()
    result = run(installed, "-c", ONLY, "srwm_agents,torch,numpy", installed / "bin" / script, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"{command}: error: ")
    assert result.stderr.endswith(f"install with: pip install 'srwm-agents[{extra}]'\n")
    assert result.stderr.count("\n") == 1
