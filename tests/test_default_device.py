"""``torch.set_default_device``: modules are made there, as PyTorch's are, and calls follow their inputs instead.

The default is "meta" here, whose tensors have no numbers: what a call made there by mistake could not be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from srwm_agents import SRWM, Agent, AgentConfig, AgentPolicy, SRWMCell
from srwm_agents.cores import CORES, make_core
from srwm_agents.introspective import IntrospectiveNet

SMALL: dict[str, Any] = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
AGENT = AgentConfig("srwm", SMALL, num_actions=3, encoder="convnet_impala", encoder_mlp_layers=(16,))
MAKERS: dict[str, Callable[[], nn.Module]] = {
    **{core: lambda core=core: make_core(core, input_size=3, **SMALL) for core in CORES},
    "SRWM": lambda: SRWM(3, 16),
    "SRWMCell": lambda: SRWMCell(3, 16),
    "Agent": lambda: Agent(AGENT),
    "IntrospectiveNet": lambda: IntrospectiveNet(3, 2),
    "IntrospectiveNet of a generator": lambda: IntrospectiveNet(3, 2, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", MAKERS)
def test_modules_are_made_on_the_default_device(name: str, device: str) -> None:
    with torch.device(device):
        module = MAKERS[name]()
    assert {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} == {device}


def test_a_named_device_is_taken() -> None:
    with torch.device("meta"):
        modules = [SRWM(3, 16, device="cpu"), SRWMCell(3, 16, device="cpu")]
    assert {tensor.device.type for module in modules for tensor in module.parameters()} == {"cpu"}


def assert_equal(results: Any, expected: Any) -> None:
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("core", CORES)
def test_a_core_follows_its_inputs(core: str) -> None:
    torch.manual_seed(0)
    module = make_core(core, input_size=3, **SMALL)
    x, resets = torch.randn(2, 4, 3), torch.rand(2, 4) < 0.3
    with torch.no_grad():
        expected = module(x, None, resets)
    with torch.device("meta"):
        with torch.no_grad():
            assert_equal(module(x, None, resets), expected)
            assert_equal(module(x, module.initial_state(2), resets.float()), expected)
        module(x)[0].sum().backward()
    assert any(parameter.grad is not None for parameter in module.parameters())


def test_other_modules_follow_their_inputs() -> None:
    torch.manual_seed(0)
    memory, cell, net, agent = SRWM(3, 16), SRWMCell(3, 16), IntrospectiveNet(3, 2), Agent(AGENT).eval()
    x = torch.randn(5, 2, 3)
    observation = {"obs": torch.zeros(2, 3, 64, 64, dtype=torch.uint8), "last_reward": torch.zeros(2, 1)}

    @torch.no_grad()
    def called() -> list[Any]:
        acted = [*agent.act(observation), AgentPolicy(agent)(observation)]
        return [*memory(x), *memory(x[:, 0]), *cell(x[0]), net(x).output, *acted]

    expected = called()
    with torch.device("meta"):
        assert_equal(called(), expected)
