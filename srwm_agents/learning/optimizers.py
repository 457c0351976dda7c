"""Optimisers by name, with steps that a CUDA graph can capture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter


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


def make_optimizer(
    parameters: Iterable[Parameter], settings: OptimizerSettings, *, captured: bool
) -> torch.optim.Optimizer:
    """Make PyTorch's optimiser of that name; ``captured``: its steps go into a CUDA graph."""
    if settings.name == "rmsprop":
        optimizer: torch.optim.Optimizer = torch.optim.RMSprop(
            parameters, alpha=settings.rmsprop_alpha, eps=settings.rmsprop_eps, momentum=settings.rmsprop_momentum
        )
    else:
        optimizer = torch.optim.Adam(parameters, betas=settings.adam_betas, eps=settings.adam_eps)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate
    set_capturable(optimizer, captured=captured)
    return optimizer


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
    """Set the learning rate of all parameters, in place on the device if a captured step reads it there."""
    for group in optimizer.param_groups:
        own = rate * group.get("lr_scale", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own
