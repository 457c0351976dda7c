"""What needs PyTorch, NumPy and safetensors alone; run by a program that has nothing else of ours installed."""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import srwm_agents
from srwm_agents import SRWM, Agent, AgentConfig, AgentPolicy, SRWMCell, load_agent, save_agent
from srwm_agents.cores import CORES, make_core
from srwm_agents.ops import SRWMWeights, srwm

INTEGRATIONS = {
    "sample_factory": ("train", "sample_factory"),
    "sb3": ("sb3", "sb3_contrib"),
    "torchrl": ("torchrl", "torchrl"),
    "hub": ("hub", "huggingface_hub"),
}
"""The extra and the framework of each integration that cannot be imported without one."""


def check_cores() -> None:
    """Every core runs, forwards and backwards."""
    for name in CORES:
        core = make_core(name, input_size=9, hidden_size=16, num_layers=1)
        out, state = core(torch.randn(2, 3, 9))
        out.sum().backward()
        assert out.shape == (2, 3, core.output_size), name
        assert state.shape == (2, core.state_size), name


def check_modules() -> None:
    """The drop-in modules, as README shows them."""
    memory, cell = SRWM(4, 32), SRWMCell(4, 32)
    out, state = memory(torch.randn(10, 3, 4))
    out, state = memory(torch.randn(10, 3, 4), state, torch.zeros(10, 3))
    assert (out.shape, state.shape) == ((10, 3, 32), (1, 3, memory.state_size))
    assert cell(torch.randn(3, 4))[0].shape == (3, 32)


def check_op() -> None:
    """The op by itself."""
    width = 4
    weights = SRWMWeights(*(torch.randn(1, width, size) for size in (width, width, width, 4)))
    y, _ = srwm(torch.randn(2, 3, 1, width), weights)
    assert y.shape == (2, 3, 1, width)


def check_agent() -> None:
    """An agent is saved, loaded, and acts."""
    config = AgentConfig("srwm", {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}, num_actions=3)
    with tempfile.TemporaryDirectory() as folder:
        agent = load_agent(save_agent(Agent(config), Path(folder) / "agent"))
    observation = {"obs": np.zeros((2, 3, 64, 64), np.uint8), "last_reward": np.zeros((2, 1), np.float32)}
    assert AgentPolicy(agent)(observation).shape == (2,)


def check_missing_packages() -> None:
    """An integration without its framework says which extra has it."""
    for package, (extra, framework) in INTEGRATIONS.items():
        if find_spec(framework) is not None:
            continue
        message = "imported without its framework"
        try:
            import_module(f"srwm_agents.integrations.{package}")
        except ModuleNotFoundError as error:
            message = str(error)
        assert message.endswith(f"install with: pip install 'srwm-agents[{extra}]'"), f"{package}: {message}"


if __name__ == "__main__":
    for check in (check_cores, check_modules, check_op, check_agent, check_missing_packages):
        check()
    print(f"srwm_agents {srwm_agents.__version__} works on Python {sys.version.split()[0]}, torch {torch.__version__}")
