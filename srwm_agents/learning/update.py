"""One optimiser step on one minibatch, as ordinary launches or as one CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from srwm_agents.encoders import IMAGE_KEY
from srwm_agents.graphs import Graphed
from srwm_agents.learning.augmentation import shift_images
from srwm_agents.learning.losses import ActorCritic, Losses, LossSettings, actor_critic_losses
from srwm_agents.learning.pooling import SINGLE, Pool
from srwm_agents.learning.rollout import Observations, Rollout
from srwm_agents.learning.scales import GameScales


class TrainableActorCritic(ActorCritic, Protocol):
    """An actor-critic that an optimiser changes."""

    def networks(self) -> list[list[Parameter]]:
        """Parameters by network: the policy's first, then those that only values teach. Gradients are clipped by
        network.
        """
        ...


@dataclass(frozen=True)
class UpdateSettings:
    """Choices of an :class:`Update`."""

    loss: LossSettings
    max_grad_norm: float = 0.0
    """To which each network's gradient is scaled down; 0: never."""
    augment_shift: int = 0
    """Images are moved by up to this many pixels: beside those acted on if ``loss.consistency_coeff`` is above 0, else
    in their place."""


class UpdateResult(NamedTuple):
    """What the summaries look at."""

    losses: Losses
    grad_norm: Tensor
    """Norm of the policy network's gradient before clipping."""


class Update:
    """A function of a minibatch that changes the model: loss, gradients, clipping, optimiser.

    The gradients of learners that share a batch are averaged before they are clipped. A network's gradient that is not
    finite counts as zero, because it would spoil weights and optimiser for good; ``gradients_left_out`` counts them.
    """

    def __init__(
        self,
        model: TrainableActorCritic,
        optimizer: torch.optim.Optimizer,
        settings: UpdateSettings,
        *,
        scales: GameScales | None = None,
        pool: Pool = SINGLE,
        captured: bool = False,
    ) -> None:
        """``captured``: replay each shape of minibatch as one CUDA graph; the optimiser must be fit for that."""
        assert isinstance(model, nn.Module)
        self.model = model
        self._module: nn.Module = model
        self.optimizer = optimizer
        self.settings = settings
        self.scales = scales
        self.pool = pool
        device = next(model.parameters()).device
        self.gradients_left_out = torch.zeros((), dtype=torch.int64, device=device)
        """int64, since the start."""
        self.graph: Graphed[UpdateResult] | None = Graphed(self._of_tree) if captured else None

    def __call__(self, rollout: Rollout) -> UpdateResult:
        """One step. A captured one's result is overwritten by the next."""
        return self._eager(rollout) if self.graph is None else self.graph(rollout.tree())

    def _of_tree(self, tree: Any) -> UpdateResult:
        return self._eager(Rollout(**tree))

    def losses(self, rollout: Rollout) -> Losses:
        """The loss that a step would descend, with its history; running statistics move as in a step."""
        moved: Observations | None = None
        if self.settings.augment_shift:
            images = shift_images(rollout.observations[IMAGE_KEY], self.settings.augment_shift)
            moved = {**rollout.observations, IMAGE_KEY: images}
            if not self.settings.loss.consistency_coeff:
                rollout, moved = Rollout(**{**rollout.tree(), "observations": moved}), None
        return actor_critic_losses(self.model, rollout, self.settings.loss, self.scales, self.pool, moved)

    def _eager(self, rollout: Rollout) -> UpdateResult:
        # Nothing in here waits for the device, so that it can be captured.
        losses = self.losses(rollout)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.pool.average_gradients(self._module)
        # Each network by itself: a critic's large error does not shrink the policy's step.
        grad_norm, *_ = [self._clip_and_drop_nonfinite(network) for network in self.model.networks()]
        self.optimizer.step()
        return UpdateResult(losses.detach(), grad_norm)

    def _clip_and_drop_nonfinite(self, network: list[Parameter]) -> Tensor:
        """Scale a network's gradient down to the limit, or to zero if it is not finite; its norm before that."""
        norm = torch.nn.utils.clip_grad_norm_(network, self.settings.max_grad_norm or float("inf"))
        spoilt = ~norm.isfinite()
        self.gradients_left_out.add_(spoilt)
        for parameter in network:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(spoilt, 0)
        return norm
