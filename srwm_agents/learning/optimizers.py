"""Optimisers by name, with steps that a CUDA graph can capture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

_SCALE = "lr_scale"
"""Name of a group's factor on the learning rate."""


@dataclass(frozen=True)
class OptimizerSettings:
    """Choices and constants of :func:`make_optimizer`."""

    name: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float = 1e-4
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_eps: float = 1e-6
    rmsprop_alpha: float = 0.99
    """Smoothing constant of the mean square."""
    rmsprop_eps: float = 0.01
    rmsprop_momentum: float = 0.0


class RatedParameters(NamedTuple):
    """Parameters with a learning rate of their own."""

    parameters: Sequence[Parameter]
    scale: float = 1.0
    """Factor on the optimiser's learning rate."""


def make_optimizer(
    networks: Sequence[RatedParameters], settings: OptimizerSettings, *, captured: bool
) -> torch.optim.Optimizer:
    """Make PyTorch's optimiser of that name, with one group of parameters a network.

    Args:
        networks: what it optimises.
        settings: choices and constants.
        captured: whether its steps go into a CUDA graph.
    """
    parameters = [{"params": list(network.parameters), _SCALE: network.scale} for network in networks]
    if settings.name == "rmsprop":
        optimizer: torch.optim.Optimizer = torch.optim.RMSprop(
            parameters, alpha=settings.rmsprop_alpha, eps=settings.rmsprop_eps, momentum=settings.rmsprop_momentum
        )
    else:
        optimizer = torch.optim.Adam(parameters, betas=settings.adam_betas, eps=settings.adam_eps)
    set_learning_rate(optimizer, settings.learning_rate)
    set_capturable(optimizer, captured=captured)
    return optimizer


def regrouped(state: dict[str, Any], optimizer: torch.optim.Optimizer, order: Iterable[Parameter]) -> dict[str, Any]:
    """An optimiser's saved state with the groups of ``optimizer``, whose scales hold from then on.

    Args:
        state: of an optimiser of the same parameters, with as many groups or with one group for all.
        optimizer: the one that is to load it.
        order: the parameters as they were in the one group.
    """
    saved = state["param_groups"]
    if len(saved) == len(optimizer.param_groups):
        groups = [{**old, _SCALE: new[_SCALE]} for old, new in zip(saved, optimizer.param_groups, strict=True)]
        return {**state, "param_groups": groups}
    (one,) = saved
    ids = dict(zip((id(parameter) for parameter in order), one["params"], strict=True))
    groups = [
        {**one, "params": [ids[id(parameter)] for parameter in new["params"]], _SCALE: new[_SCALE]}
        for new in optimizer.param_groups
    ]
    return {**state, "param_groups": groups}


def set_capturable(optimizer: torch.optim.Optimizer, *, captured: bool) -> None:
    """Set whether a CUDA graph captures the optimiser's steps; to be called again after loading a checkpoint.

    A checkpoint restores the setting that it was saved with, which need not be the running experiment's.
    """
    for group in optimizer.param_groups:
        device = group["params"][0].device
        group["capturable"] = captured
        if isinstance(optimizer, torch.optim.Adam):
            group["fused"] = captured  # else a step divides each parameter's tensors by the learning rate one by one
        if captured:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)
        for state in (optimizer.state[parameter] for parameter in group["params"] if parameter in optimizer.state):
            state["step"] = state["step"].to(device if captured else "cpu", torch.float32)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times each group's factor; in place on the device if a captured step reads it there."""
    for group in optimizer.param_groups:
        own = rate * group.get(_SCALE, 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
