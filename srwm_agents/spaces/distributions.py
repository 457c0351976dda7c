"""The policy's distributions over actions, from the outputs of its head."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.spaces.actions import ActionSpec

MIN_LOG_DEVIATION, MAX_LOG_DEVIATION = -5.0, 2.0
"""Bounds on a Gaussian's log-deviation; its unit is half of an action's range."""


class ActionDistribution(Protocol):
    """N distributions over choices of K numbers."""

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw choices [N, K]: int64, or float32 for real numbers."""
        ...

    def mode(self) -> Tensor:
        """The likeliest choices [N, K]."""
        ...

    def log_prob(self, actions: Tensor, /) -> Tensor:
        """Log-probabilities (densities) of choices [N, K], [N]."""
        ...

    def entropy(self) -> Tensor:
        """Entropies, [N]."""
        ...

    def kl_divergence(self, other: Any, /) -> Tensor:
        """KL(self || other), [N]."""
        ...

    def symmetric_kl_with_uniform_prior(self) -> Tensor:
        """Mean of both KL divergences from the uniform distribution, [N]."""
        ...


class Categorical:
    """One whole number, from logits [N, size]."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits
        self.log_probs = functional.log_softmax(logits, dim=-1)
        self.probs = functional.softmax(logits, dim=-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.multinomial(self.probs, 1, replacement=True, generator=generator)

    def mode(self) -> Tensor:
        return self._logits.argmax(-1, keepdim=True)

    def log_prob(self, actions: Tensor) -> Tensor:
        return self.log_probs.gather(-1, actions.long()).view(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs * self.probs).sum(-1)

    def kl_divergence(self, other: Categorical) -> Tensor:
        return (self.probs * (self.log_probs - other.log_probs)).sum(-1)

    def symmetric_kl_with_uniform_prior(self) -> Tensor:
        size = self.log_probs.shape[-1]
        log_uniform = -math.log(size)
        to_uniform = (self.probs * (self.log_probs - log_uniform)).sum(-1)
        return 0.5 * (to_uniform + ((log_uniform - self.log_probs) / size).sum(-1))


class Categoricals:
    """Several whole numbers, independent of one another given the logits [N, sum(sizes)]."""

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]) -> None:
        self.parts = [Categorical(part) for part in logits.split(sizes, dim=-1)]

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.cat([part.sample(generator) for part in self.parts], dim=-1)

    def mode(self) -> Tensor:
        return torch.cat([part.mode() for part in self.parts], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        columns = actions.split(1, dim=-1)
        return sum_of([part.log_prob(column) for part, column in zip(self.parts, columns, strict=True)])

    def entropy(self) -> Tensor:
        return sum_of([part.entropy() for part in self.parts])

    def kl_divergence(self, other: Categoricals) -> Tensor:
        return sum_of([part.kl_divergence(of) for part, of in zip(self.parts, other.parts, strict=True)])

    def symmetric_kl_with_uniform_prior(self) -> Tensor:
        return sum_of([part.symmetric_kl_with_uniform_prior() for part in self.parts])


class Gaussian:
    """K real numbers, independent given parameters [N, 2 K]: means, then log-deviations, which are clamped."""

    def __init__(self, parameters: Tensor) -> None:
        self.mean, log_deviation = parameters.chunk(2, dim=-1)
        self.log_deviation = log_deviation.clamp(MIN_LOG_DEVIATION, MAX_LOG_DEVIATION)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        shape, device = self.mean.shape, self.mean.device
        noise = torch.randn(shape, generator=generator, device=device, dtype=self.mean.dtype)
        return self.mean + self.log_deviation.exp() * noise

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        distance = (actions - self.mean) * (-self.log_deviation).exp()
        return (-0.5 * distance.square() - self.log_deviation - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Of the choice before it is clipped to the action's range."""
        return (self.log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl_divergence(self, other: Gaussian) -> Tensor:
        wider = 2 * (self.log_deviation - other.log_deviation)
        apart = ((self.mean - other.mean) * (-other.log_deviation).exp()).square()
        return 0.5 * (wider.exp() + apart - 1 - wider).sum(-1)

    def symmetric_kl_with_uniform_prior(self) -> Tensor:
        raise ValueError("--exploration_loss is 'symmetric_kl', expected 'entropy' where actions are real numbers")


def make_distribution(spec: ActionSpec, parameters: Tensor) -> Categorical | Categoricals | Gaussian:
    """The distributions of ``spec`` with parameters [N, ``spec.parameters``]."""
    if spec.continuous:
        return Gaussian(parameters)
    return Categorical(parameters) if spec.count == 1 else Categoricals(parameters, spec.sizes)


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack(parts).sum(0)
