"""Optimisers with a learning rate of its own for each network, and checkpoints from before that."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from srwm_agents.learning.optimizers import (
    OptimizerSettings,
    RatedParameters,
    make_optimizer,
    regrouped,
    set_learning_rate,
)

SETTINGS = OptimizerSettings(learning_rate=0.1)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 12).view(4, 3)).square().sum().backward()
    optimizer.step()


def networks(model: nn.Sequential, scale: float) -> list[RatedParameters]:
    """Last and first layer: not the order of the model's parameters."""
    return [RatedParameters(list(model[1].parameters())), RatedParameters(list(model[0].parameters()), scale)]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))


@pytest.mark.parametrize("captured", [False, pytest.param(True, marks=pytest.mark.gpu)])
def test_each_network_has_its_rate(model, captured: bool) -> None:
    model = model.to("cuda" if captured else "cpu")
    optimizer = make_optimizer(networks(model, 0.25), SETTINGS, captured=captured)
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.1, 0.025])
    set_learning_rate(optimizer, 0.04)
    assert [float(group["lr"]) for group in optimizer.param_groups] == pytest.approx([0.04, 0.01])


@pytest.mark.parametrize("groups", [1, 2])
def test_a_saved_state_goes_on_in_other_groups(model, groups: int) -> None:
    """Of one group for all, as saved before there were several, or of the same groups with another scale."""
    all_parameters = [RatedParameters(list(model.parameters()))]
    saved = make_optimizer(networks(model, 0.5) if groups == 2 else all_parameters, SETTINGS, captured=False)
    for _ in range(3):
        step(model, saved)
    other = copy.deepcopy(model)
    going_on = make_optimizer(networks(other, 1.0), SETTINGS, captured=False)
    going_on.load_state_dict(regrouped(copy.deepcopy(saved.state_dict()), going_on, other.parameters()))
    for optimizer in (saved, going_on):
        for group in optimizer.param_groups:
            group["lr_scale"] = 1.0
        set_learning_rate(optimizer, 0.1)
    for one, optimizer in ((model, saved), (other, going_on)):
        step(one, optimizer)
    for expected, found in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_scales_are_those_of_the_run_not_of_the_checkpoint(model) -> None:
    saved = make_optimizer(networks(model, 0.5), SETTINGS, captured=False)
    step(model, saved)
    going_on = make_optimizer(networks(model, 0.125), SETTINGS, captured=False)
    going_on.load_state_dict(regrouped(saved.state_dict(), going_on, model.parameters()))
    set_learning_rate(going_on, 0.8)
    assert [group["lr"] for group in going_on.param_groups] == pytest.approx([0.8, 0.1])
