"""One optimiser step on one minibatch, as ordinary launches or as one CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter

from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.graphs import Graphed
from srwm_agents.learning.augmentation import shift_images
from srwm_agents.learning.losses import ActorCritic, Losses, LossSettings, actor_critic_losses
from srwm_agents.learning.pooling import SINGLE, Pool
from srwm_agents.learning.rollout import Observations, Rollout
from srwm_agents.learning.scales import GameScales


class TrainableActorCritic(ActorCritic, Protocol):
    """An actor-critic whose parameters are grouped for gradient clipping."""

    def networks(self) -> list[list[Parameter]]:
        """Parameters by network: the policy network's, then those of a critic that is not shared."""
        ...


@dataclass(frozen=True)
class UpdateSettings:
    """Choices of an :class:`Update`."""

    loss: LossSettings
    max_grad_norm: float = 0.0
    """Largest norm of each network's gradient; 0: no clipping."""
    augment_shift: int = 0
    """Largest image shift in pixels, 0: none. Shifted images are used beside the original ones if
    ``loss.consistency_coeff`` is above 0, else in their place."""


class UpdateResult(NamedTuple):
    """Losses and gradient norm of one step."""

    losses: Losses
    grad_norm: Tensor
    """Norm of the policy network's gradient before clipping."""


class Update:
    """One optimiser step on a minibatch: losses, gradients, mean over learners, clipping, optimiser.

    Gradients of learners that share a batch are averaged before they are clipped. A network's gradient that is not
    finite is replaced by zero, since it would make weights and optimiser state NaN; ``gradients_left_out`` counts them.
    """

    def __init__(
        self,
        model: TrainableActorCritic,
        optimizer: torch.optim.Optimizer,
        settings: UpdateSettings,
        *,
        scales: GameScales | None = None,
        value_weights: Tensor | None = None,
        pool: Pool = SINGLE,
        captured: bool = False,
    ) -> None:
        """What is not said here is as in :func:`.actor_critic_losses`.

        Args:
            model: is trained in place.
            optimizer: of the model's parameters.
            settings: choices.
            scales: sizes of the games' advantages.
            value_weights: the games' factors on value errors.
            pool: the learners that share a batch.
            captured: replay each shape of minibatch as one CUDA graph; the optimiser must be capturable.
        """
        self.model: Any = model
        """An ``nn.Module`` that is a :class:`TrainableActorCritic`."""
        self.optimizer = optimizer
        self.settings = settings
        self.scales = scales
        self.value_weights = value_weights
        self.pool = pool
        device = optimizer.param_groups[0]["params"][0].device
        self.gradients_left_out = torch.zeros((), dtype=torch.int64, device=device)
        """int64 scalar: gradients that were not finite, since the start."""
        self.graph: Graphed[UpdateResult] | None = None
        self._policy_graph: Graphed[UpdateResult] | None = None
        if captured:
            self.graph = Graphed(lambda tree: self._eager(Rollout(**tree)))
            self._policy_graph = Graphed(lambda tree: self._eager(Rollout(**tree), with_critic=False))

    def __call__(self, rollout: Rollout, *, with_critic: bool = True) -> UpdateResult:
        """Make one step. With ``captured`` the next step overwrites the result.

        Args:
            rollout: the minibatch.
            with_critic: False: a critic that is not shared stays as it is, which costs less.
        """
        graph = self.graph if with_critic else self._policy_graph
        return self._eager(rollout, with_critic=with_critic) if graph is None else graph(rollout.tree())

    def losses(self, rollout: Rollout, *, with_critic: bool = True) -> Losses:
        """The losses of a step, with their autograd graph; updates running statistics as a step does."""
        augmented: Observations | None = None
        if self.settings.augment_shift:
            images = shift_images(rollout.observations[IMAGE_KEY], self.settings.augment_shift)
            augmented = {**rollout.observations, IMAGE_KEY: images}
            if not self.settings.loss.consistency_coeff:
                rollout, augmented = Rollout(**{**rollout.tree(), "observations": augmented}), None
        settings = self.settings.loss
        return actor_critic_losses(
            self.model, rollout, settings, self.scales, self.pool, augmented,
            value_weights=self.value_weights, with_critic=with_critic,
        )  # fmt: skip

    def _eager(self, rollout: Rollout, *, with_critic: bool = True) -> UpdateResult:
        # No host sync in here: a CUDA graph captures it.
        losses = self.losses(rollout, with_critic=with_critic)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.pool.average_gradients(self.model)
        # Clipped by network, so that a critic's large error does not shrink the policy's step.
        grad_norm, *_ = [self._clip_and_drop_nonfinite(network) for network in self.model.networks()]
        self.optimizer.step()
        return UpdateResult(losses.detach(), grad_norm)

    def _clip_and_drop_nonfinite(self, network: list[Parameter]) -> Tensor:
        """Clip a network's gradient, or zero it if it is not finite; returns its norm before that."""
        gradients = [parameter.grad for parameter in network if parameter.grad is not None]
        # As one vector: an operation on each of them alone is a launch for each.
        joined = torch.cat([gradient.flatten() for gradient in gradients])
        norm = torch.linalg.vector_norm(joined)
        finite = norm.isfinite()
        self.gradients_left_out.add_(~finite)
        largest = self.settings.max_grad_norm or float("inf")
        joined = torch.where(finite, joined * (largest / (norm + 1e-6)).clamp(max=1), 0)
        parts = joined.split([gradient.numel() for gradient in gradients])
        parts = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        torch._foreach_copy_(gradients, parts)  # type: ignore[attr-defined]
        return norm
