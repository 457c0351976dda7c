"""Runs the code examples and commands of the documentation."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srwm_agents.agent import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.distributed.arguments import parse_distributed_args

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
SECTION = PAGE[PAGE.index("## TorchRL") :]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION[: SECTION.index("## Many machines")], re.DOTALL)
COMMANDS = re.findall(r"^ +(?:torchrun \S+ -m|python -m) srwm_agents distributed train (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_run(number, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
    agent = Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala", encoder_mlp_layers=(16,)))
    save_agent(agent, "train_dir/demo/agent")
    exec(compile(EXAMPLES[number], f"integrations.md, example {number}", "exec"), {})


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_parse(command, tmp_path) -> None:
    cfg = parse_distributed_args([*shlex.split(command), "--device=cpu", f"--train_dir={tmp_path}"])
    assert cfg.num_workers in (2, 64)


@pytest.mark.slow
def test_impala_with_torchrl(tmp_path) -> None:
    command = [sys.executable, "examples/impala_torchrl.py", "--frames=512", "--num_envs=8", "--rollout=16"]
    result = subprocess.run(
        [*command, f"--agent={tmp_path / 'agent'}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "128 frames" in result.stdout
    agent = load_agent(tmp_path / "agent")
    trained: Any = agent.core
    fresh: Any = Agent(agent.config).core
    assert (trained.layers[0].w_k != fresh.layers[0].w_k).any()
