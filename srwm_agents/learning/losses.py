"""The actor-critic loss on one minibatch of whole trajectories.

Read :func:`actor_critic_losses` first: evaluate the rollout, compute targets, scale them by game, then policy loss,
value loss and auxiliaries. The functions below it compute the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from srwm_agents.learning.pooling import SINGLE, Pool
from srwm_agents.learning.popart import PopArtCritic
from srwm_agents.learning.returns import VTraceReturns, bootstrapped_advantages, vtrace
from srwm_agents.learning.rollout import Observations, Rollout
from srwm_agents.learning.scales import GameScales


class ActionDistribution(Protocol):
    """N action distributions: what the losses need of them."""

    def log_prob(self, actions: Tensor, /) -> Tensor:
        """Log-probabilities of actions [N, K], [N]."""
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


@dataclass(frozen=True)
class Evaluation:
    """A model's outputs for a rollout's observations, from one pass over time."""

    features: Tensor
    """[B, T, F], input of the policy network's heads."""
    logits: Tensor
    """[B, T, A], parameters of the policy's distributions."""
    values: Tensor
    """[B, T + 1], the critic's values, from which targets are computed; from PopArt [B, T + 1, games], normalised."""
    policy_values: Tensor | None = None
    """[B, T], values of the policy network's own head; only where the critic is not shared."""
    action_advantages: Tensor | None = None
    """[B, T, A], predicted advantage of each action; only where the critic is not shared."""


class ActorCritic(Protocol):
    """A recurrent actor-critic: what the losses need of a model."""

    @property
    def popart(self) -> PopArtCritic | None:
        """The PopArt critic; None with another one."""
        ...

    def evaluate(self, observations: Observations, state: Tensor, resets: Tensor) -> Evaluation:
        """Run over time.

        Args:
            observations: entries [B, T + 1, …].
            state: [B, S], before the first step.
            resets: bool [B, T + 1], where the state is zeroed before the step.
        """
        ...

    def distribution(self, logits: Tensor) -> ActionDistribution:
        """The N distributions with parameters ``logits`` [N, A]."""
        ...


@dataclass(frozen=True)
class LossSettings:
    """Choices and coefficients of :func:`actor_critic_losses`."""

    policy_loss: Literal["vtrace", "ppo"] = "vtrace"
    """Policy gradient weighted by V-trace's advantages, or PPO's clipped surrogate."""
    clip_rho: float = 1.0
    clip_c: float = 1.0
    lambda_: float = 1.0
    """These three: see :func:`srwm_agents.learning.returns.vtrace`."""
    ppo_clip_ratio: float = 0.1
    """PPO clips ratios to [1 / (1 + this), 1 + this]."""
    normalize_advantages: bool = False
    """Whether each minibatch's advantages are scaled to mean 0 and deviation 1."""
    value_coeff: float = 0.5
    """Weight of the squared error of values."""
    advantage_coeff: float = 0.25
    """Weight of the squared error of predicted advantages; only where the critic is not shared."""
    advantage_baseline: bool = False
    """Whether the policy gradient's advantages are less their prediction for the state, the mean of the actions'
    predicted advantages under the policy; only where the critic is not shared, and for discrete actions."""
    exploration_loss: Literal["entropy", "symmetric_kl"] = "entropy"
    exploration_coeff: float = 0.01
    behaviour_kl_coeff: float = 0.0
    """Weight of KL(policy || behaviour policy)."""
    consistency_coeff: float = 0.0
    """Weight of DrAC's consistency term, between original and augmented observations."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the valid steps of the minibatch, those of all learners together."""


class Losses(NamedTuple):
    """The total loss, its parts, and the quantities that summaries report.

    The parts are means over the valid steps (of several learners: this learner's share of the mean over all). The total
    is their sum, with ``reduction`` "sum" times the number of valid steps.
    """

    total: Tensor
    policy: Tensor
    value: Tensor
    exploration: Tensor
    behaviour_kl: Tensor
    """KL from the behaviour policy, times its coefficient."""
    advantage: Tensor
    """Squared error of predicted advantages, times its coefficient; 0 with a shared critic."""
    consistency: Tensor
    """DrAC's consistency term, times its coefficient; 0 without augmented observations."""
    entropy: Tensor
    kl: Tensor
    """Mean KL divergence from the behaviour policy."""
    ratios: Tensor
    """[B, T] pi / mu of the actions taken."""
    values: Tensor
    """[B, T], in the units of the rewards."""
    targets: Tensor
    """[B, T] V-trace targets."""
    advantages: Tensor
    """[B, T], the weights of the policy gradient; with ``advantage_baseline`` before that is subtracted."""

    def detach(self) -> Losses:
        """The same numbers without the autograd graph."""
        return Losses(*(entry.detach() for entry in self))


def actor_critic_losses(
    model: ActorCritic,
    rollout: Rollout,
    settings: LossSettings,
    scales: GameScales | None = None,
    pool: Pool = SINGLE,
    augmented: Observations | None = None,
    *,
    value_weights: Tensor | None = None,
    with_critic: bool = True,
) -> Losses:
    """Losses of policy and values on a rollout, from one pass of the model over its T + 1 observations.

    The bootstrap value of Espeholt et al., ICML 2018 (arXiv:1802.01561), is the learner's own V(x_T), of the
    observation after the last step, from the state that this pass has reached, without gradient. The gradient flows
    through the whole rollout, the recurrent state included; the state before the first step is the behaviour policy's,
    as stored.

    With a critic that is not shared, the policy network's value head learns the same targets without changing the
    features that it reads, and these features learn to predict the advantage of the action taken (DAAC, Raileanu &
    Fergus, ICML 2021, arXiv:2102.10330, eq. 5), in the units and with the normalisation of the policy gradient.

    With PopArt, targets and advantages are computed in units of the reward; then its statistics are updated with the
    targets, and value error and advantages are divided by the new deviation (van Hasselt et al., 2016,
    arXiv:1602.07714, algorithm 1).

    With ``augmented`` observations DrAC's term is added (Raileanu et al., NeurIPS 2021, arXiv:2006.12862):
    ``consistency_coeff`` times KL(pi(x) || pi(x')) + (V(x) - V(x'))^2 / 2, x' the augmented ones, with gradient through
    x' only. Deviations: the KL is summed over actions, where the published code samples one; with scales or PopArt the
    second term is in the value loss's units; with a separate critic V is the policy network's value head.

    Args:
        model: the actor-critic that is trained.
        rollout: B trajectories of T steps.
        settings: choices and coefficients.
        scales: sizes of the games' advantages, updated here; None: advantages and value errors are not scaled.
        pool: the learners that share this batch; the mean over them of the result's gradients is the gradient of the
            whole batch.
        augmented: the rollout's observations with augmented images; None: no consistency term.
        value_weights: [games], factors on the games' squared value errors; None: 1.
        with_critic: False: a critic that is not shared gets no gradient; the value loss is computed all the same.
    """
    evaluation = model.evaluate(rollout.observations, rollout.state, rollout.resets)
    policy = model.distribution(evaluation.logits.flatten(0, 1))
    log_probs = policy.log_prob(rollout.actions.flatten(0, 1)).view_as(rollout.log_probs)
    log_ratios = log_probs - rollout.log_probs
    mean = _StepMean(rollout.valids, pool)

    values, bootstrap = _reward_units(
        evaluation.values if with_critic else evaluation.values.detach(), rollout, model.popart
    )
    targets, advantages = _targets(rollout, log_ratios.detach(), values.detach(), bootstrap, settings)
    values, scale, error_scale = _game_units(model, evaluation, rollout, values, targets, advantages, scales, pool)
    advantages = advantages / scale
    if settings.normalize_advantages:
        advantages = mean.standardise(advantages)

    weights = advantages - _predicted_advantages(evaluation) if settings.advantage_baseline else advantages
    if settings.policy_loss == "ppo":
        policy_loss = mean(_ppo_losses(log_ratios, weights, settings.ppo_clip_ratio))
    else:
        policy_loss = mean(-weights * log_probs)
    value_scale = settings.value_coeff / error_scale
    if value_weights is not None:
        value_scale = value_scale * value_weights[rollout.games][:, None]
    value_loss = mean((targets - values).square() * value_scale)
    if evaluation.policy_values is not None:
        value_loss = value_loss + mean((targets - evaluation.policy_values).square() * value_scale)
    advantage_loss = settings.advantage_coeff * _advantage_error(evaluation, rollout, advantages, mean)
    entropy = mean(policy.entropy())
    if settings.exploration_loss == "entropy":
        exploration_loss = -settings.exploration_coeff * entropy
    else:
        exploration_loss = settings.exploration_coeff * mean(policy.symmetric_kl_with_uniform_prior()).clamp(max=30)
    kl = mean(policy.kl_divergence(model.distribution(rollout.logits.flatten(0, 1))))
    behaviour_kl = settings.behaviour_kl_coeff * kl
    consistency_loss = torch.zeros_like(policy_loss)
    if augmented is not None:
        policy_values = values if evaluation.policy_values is None else evaluation.policy_values
        originals = evaluation.logits.detach(), policy_values.detach()
        consistency_loss = settings.consistency_coeff * mean(
            _consistency_errors(model, rollout, augmented, *originals, error_scale)
        )

    total = policy_loss + value_loss + exploration_loss + behaviour_kl + advantage_loss + consistency_loss
    if settings.reduction == "sum":
        total = total * mean.count * pool.world_size
    return Losses(
        total, policy_loss, value_loss, exploration_loss, behaviour_kl, advantage_loss, consistency_loss, entropy, kl,
        log_ratios.exp(), values, targets, advantages,
    )  # fmt: skip


class _StepMean:
    """Means over the valid steps of a batch that several learners share.

    A learner divides its own sum by the mean number of valid steps a learner. Averaged over learners, that is the mean
    over all valid steps, also where learners have different numbers of them.
    """

    def __init__(self, valids: Tensor, pool: Pool) -> None:
        self._valids, self._pool = valids, pool
        self.count = pool.mean(valids.sum().float()).clamp(min=1)

    def __call__(self, x: Tensor) -> Tensor:
        """[B, T] or [B * T] -> this learner's part of the mean."""
        return torch.where(self._valids, x.view(self._valids.shape), 0).sum() / self.count

    def standardise(self, x: Tensor) -> Tensor:
        """[B, T] -> [B, T] of mean 0 and deviation 1 over all learners' valid steps."""
        centred = x - self._pool.mean(self(x))
        deviation = self._pool.mean(self(centred.square())).sqrt()
        return centred / deviation.clamp(min=1e-7)


def _reward_units(values: Tensor, rollout: Rollout, popart: PopArtCritic | None) -> tuple[Tensor, Tensor]:
    """Values [B, T] in units of the reward, and the bootstrap value [B] without gradient."""
    if popart is not None:
        values = popart.values(values, rollout.games)
    return values[:, :-1], values[:, -1].detach()


def _targets(
    rollout: Rollout, log_ratios: Tensor, values: Tensor, bootstrap: Tensor, settings: LossSettings
) -> VTraceReturns:
    """V-trace's targets and advantages; for PPO, whose surrogate contains the ratio, advantages without rho."""
    clips = {"clip_rho": settings.clip_rho, "clip_c": settings.clip_c}
    rewards, discounts, lambda_ = rollout.rewards, rollout.discounts, settings.lambda_
    returns = vtrace(log_ratios, rewards, discounts, values, bootstrap, **clips, lambda_=lambda_)
    if settings.policy_loss == "ppo":
        advantages = bootstrapped_advantages(returns.targets, rewards, discounts, values, bootstrap, lambda_=lambda_)
        return VTraceReturns(returns.targets, advantages)
    return returns


def _game_units(
    model: ActorCritic,
    evaluation: Evaluation,
    rollout: Rollout,
    values: Tensor,
    targets: Tensor,
    advantages: Tensor,
    scales: GameScales | None,
    pool: Pool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Update the statistics of PopArt or of ``scales``.

    Returns:
        values [B, T], recomputed with PopArt, whose head has changed; what advantages are divided by, [B, 1] (PopArt:
        sigma); what squared value errors are divided by, [B, 1] (PopArt: sigma^2; ``scales``: the same as advantages).
    """
    if model.popart is not None:
        deviation = model.popart.update(targets, rollout.games, rollout.valids, pool)
        # The same values, now of the head that the optimiser will change.
        values = model.popart.values(model.popart(evaluation.features.flatten(0, 1)), rollout.games)
        return values, deviation, deviation.square()
    if scales is not None:
        scale = scales.update(rollout.games, advantages, rollout.valids, pool)
        return values, scale, scale
    one = torch.ones_like(advantages[:, :1])
    return values, one, one


def _ppo_losses(log_ratios: Tensor, advantages: Tensor, clip_ratio: float) -> Tensor:
    """PPO's clipped surrogate (Schulman et al., 2017, arXiv:1707.06347, eq. 7), negated, [B, T].

    Deviation, Sample Factory's: the lower clip is 1 / (1 + clip_ratio), not 1 - clip_ratio.
    """
    ratios = log_ratios.exp()
    clipped = ratios.clamp(1 / (1 + clip_ratio), 1 + clip_ratio)
    return -torch.minimum(ratios * advantages, clipped * advantages)


def _predicted_advantages(evaluation: Evaluation) -> Tensor:
    """The mean of the actions' predicted advantages under the policy, [B, T], without gradient.

    It is 0 for a critic without error. Of another critic it is the error that the policy's features predict: a function
    of the state, which leaves the policy gradient's mean as it is.
    """
    assert evaluation.action_advantages is not None
    return (evaluation.logits.softmax(-1) * evaluation.action_advantages).sum(-1).detach()


def _advantage_error(evaluation: Evaluation, rollout: Rollout, advantages: Tensor, mean: _StepMean) -> Tensor:
    """Mean squared error of the advantage predicted for the action taken; 0 if the model predicts none."""
    if evaluation.action_advantages is None:
        return torch.zeros((), device=advantages.device)
    of_taken = evaluation.action_advantages.gather(2, rollout.actions.long()).squeeze(2)
    return mean((advantages - of_taken).square())


def _consistency_errors(
    model: ActorCritic, rollout: Rollout, augmented: Observations, logits: Tensor, values: Tensor, error_scale: Tensor
) -> Tensor:
    """DrAC's term at each step [B, T]; ``logits`` [B, T, A] and ``values`` [B, T] are of the original observations."""
    evaluation = model.evaluate(augmented, rollout.state, rollout.resets)
    policy = model.distribution(logits.flatten(0, 1))
    kl = policy.kl_divergence(model.distribution(evaluation.logits.flatten(0, 1))).view_as(values)
    augmented_values = evaluation.policy_values
    if augmented_values is None:
        augmented_values, _ = _reward_units(evaluation.values, rollout, model.popart)
    return kl + (values - augmented_values).square() / error_scale / 2
