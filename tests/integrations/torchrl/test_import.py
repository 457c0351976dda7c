"""TorchRL's modules need no simulator, no gymnasium and no other framework; only the Procgen environment does."""

from __future__ import annotations

import subprocess
import sys


def run_without(packages: str, program: str) -> str:
    """Standard output of a program in a new process in which ``packages`` cannot be imported."""
    block = f"import sys\nfor name in {packages.split()!r}: sys.modules[name] = None\n"
    result = subprocess.run([sys.executable, "-c", block + program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_modules_need_torchrl_only() -> None:
    program = """
import torch
from tensordict import TensorDict
from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.integrations.torchrl import SRWMModule, make_actor_critic

module = SRWMModule("srwm", input_size=4, hidden_size=8, num_heads=2)
data = {"embed": torch.ones(2, 4), "recurrent_state": torch.zeros(2, module.core.state_size)}
module(TensorDict({**data, "is_init": torch.ones(2, 1, dtype=torch.bool)}, [2]))
settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
make_actor_critic(Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala", encoder_mlp_layers=(16,))))
try:
    from srwm_agents.integrations.torchrl import make_environment
except ModuleNotFoundError as error:
    print(error)
assert "srwm_agents.integrations.torchrl.environment" not in sys.modules
"""
    printed = run_without("procgen gym gym3 gymnasium sample_factory stable_baselines3 ray", program)
    assert "gymnasium" in printed
    assert "pip install 'srwm-agents[procgen]'" in printed


def test_without_torchrl_the_extra_is_named() -> None:
    program = """
try:
    import srwm_agents.integrations.torchrl
except ModuleNotFoundError as error:
    print(error)
"""
    printed = run_without("torchrl", program)
    assert printed.endswith("install with: pip install 'srwm-agents[torchrl]'\n")
