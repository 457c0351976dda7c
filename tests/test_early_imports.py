"""Imports in a thread."""

from __future__ import annotations

import sys

import pytest

from srwm_agents.early_imports import imported_meanwhile


@pytest.fixture
def slow_module(tmp_path, monkeypatch):
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.3)\nREADY = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "slow_to_import"
    sys.modules.pop("slow_to_import", None)


def test_the_block_runs_while_a_module_is_imported(slow_module) -> None:
    with imported_meanwhile(slow_module, "no_such_module"):
        assert not getattr(sys.modules.get(slow_module), "READY", False)
    assert sys.modules[slow_module].READY


def test_an_exception_of_the_block_is_raised(slow_module) -> None:
    with pytest.raises(KeyError, match="mine"), imported_meanwhile(slow_module):
        raise KeyError("mine")
