"""The actor-critic loss on one minibatch of whole trajectories."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from sample_factory.algo.utils.action_distributions import get_action_distribution
from torch import Tensor

from srwm_agents.integrations.sample_factory.environment import GAME_ENTRY
from srwm_agents.integrations.sample_factory.normalization import GameScales, Pool, alone
from srwm_agents.ops.vtrace import vtrace


class Losses(NamedTuple):
    """Scalars of the loss, and what the summaries look at."""

    total: Tensor
    policy: Tensor
    value: Tensor
    exploration: Tensor
    behaviour_kl: Tensor
    """KL from the behaviour policy, times its coefficient."""
    advantage: Tensor
    """Error of the policy's predicted advantages, times its coefficient; 0 with a shared critic."""
    consistency: Tensor
    """Difference between what is made of images and of moved ones, times its coefficient; 0 without moved ones."""
    entropy: Tensor
    kl: Tensor
    """Mean KL divergence from the behaviour policy."""
    ratios: Tensor
    """[B, T] pi / mu of the actions taken."""
    values: Tensor
    """[B, T]."""
    targets: Tensor
    """[B, T] V-trace targets."""
    advantages: Tensor
    """[B, T] as they weigh the policy gradient."""

    def detach(self) -> Losses:
        """The same numbers without their history."""
        return Losses(*(entry.detach() for entry in self))


def vtrace_losses(
    actor_critic: Any, minibatch: Any, cfg: Any, scales: GameScales | None = None, pool: Pool = alone
) -> Losses:
    """Run the model over the rollout and one step more, and weigh its gradient by V-trace.

    The value of the step after the last is the learner's own, from the state that its own pass has reached: the true
    bootstrap value of Espeholt et al., 2018, without gradient. The gradient flows through the whole rollout, the
    recurrent state included; what came before it is the behaviour policy's state, as stored.

    With a critic that is not shared the values are its own. The policy network's value head learns the same targets,
    of features that it cannot change; those learn ``cfg.advantage_loss_coeff`` times the squared error of the advantage
    that they predict of the action taken, as DAAC's do (Raileanu & Fergus, ICML 2021, arXiv:2102.10330, eq. 5):
    in the units and with the normalisation that the policy gradient has.

    With a PopArt critic, targets and advantages are computed in units of the reward; then its statistics are moved with
    the targets, and both value error and advantages are taken in units of the new deviation (van Hasselt et al., 2016,
    algorithm 1).

    Where the minibatch has "moved" observations (``augmentation.py`` says why), the loss has one part more, DrAC's
    (Raileanu et al., NeurIPS 2021, arXiv:2006.12862): ``cfg.augment_consistency`` times KL(pi(seen) || pi(moved)) +
    (V(seen) - V(moved))^2 / 2, with gradient through the moved ones only. Deviations: the KL is summed over actions,
    where the published code samples one; with scales or PopArt the second term is in the value loss's units; and with a
    critic that is not shared it reaches the policy network's value head alone.

    Args:
        actor_critic: a Sample Factory model whose core has ``sequence``.
        minibatch: observations [B, T+1, …], state [B, S], and [B, T] rewards, dones, discounts (0 where an
            episode ends), actions [B, T, 1], log_prob_actions, action_logits [B, T, A], valids; perhaps moved, like
            observations.
        cfg: coefficients, ``policy_loss``, ``loss_reduction``, ``normalize_advantages``, clipping constants.
        scales: of the games, updated here; None leaves advantages and value loss as they are.
        pool: for PopArt's statistics, over processes that learn together.
    """
    batch, steps = minibatch.rewards.shape
    valids = minibatch.valids
    games = minibatch.observations[GAME_ENTRY][:, 0, 0].long()
    popart = actor_critic.popart

    core_out = _core_outputs(actor_critic, minibatch.observations, minibatch)
    policy_in = core_out[:, :-1].flatten(0, 1)
    heads = actor_critic.forward_tail(policy_in, values_only=False, sample_actions=False)
    policy_values = heads["values"]
    if actor_critic.critic is None:
        values = policy_values
        with torch.no_grad():
            bootstrap = actor_critic.forward_tail(core_out[:, -1], values_only=True, sample_actions=False)["values"]
    else:
        outputs = actor_critic.critic(_flat(minibatch.observations), core_out.flatten(0, 1)).view(batch, steps + 1)
        values, bootstrap = outputs[:, :-1], outputs[:, -1].detach()
    if popart is not None:
        values, bootstrap = (popart.values(outputs, games) for outputs in (values, bootstrap))
    values = values.view(batch, steps)
    policy_values = values if actor_critic.critic is None else policy_values.view(batch, steps)

    distribution = actor_critic.action_distribution()
    log_probs = distribution.log_prob(minibatch.actions.flatten(0, 1)).view(batch, steps)
    log_ratios = log_probs - minibatch.log_prob_actions
    discounts = minibatch.discounts
    targets, advantages = vtrace(
        log_ratios.detach(),
        minibatch.rewards,
        discounts,
        values.detach(),
        bootstrap.view(batch),
        clip_rho=cfg.vtrace_rho,
        clip_c=cfg.vtrace_c,
    )

    count = valids.sum().clamp(min=1)

    # Means over the valid steps; the published agents sum over the batch, which the whole loss is scaled to below.
    def mean(x: Tensor) -> Tensor:
        return torch.where(valids, x.view(batch, steps), 0).sum() / count

    if cfg.policy_loss == "ppo":
        # The ratio stands in the surrogate itself, so rho is taken out of the advantage.
        targets_tp1 = torch.cat([targets[:, 1:], bootstrap.view(batch, 1)], dim=1)
        advantages = minibatch.rewards + discounts * targets_tp1 - values.detach()
    error_scale = torch.ones(batch, 1, device=core_out.device)
    if popart is not None:
        deviation = popart.update(targets, games, valids, pool)
        advantages, error_scale = advantages / deviation, deviation.square()
        # The same values as before, but now of the head that the optimiser will change.
        values = popart.values(popart(actor_critic.decoder(policy_in)), games)
    elif scales is not None:
        error_scale = scales.update(games, advantages, valids)
        advantages = advantages / error_scale
    if cfg.normalize_advantages:
        centre = mean(advantages)
        deviation = mean((advantages - centre) ** 2).sqrt()
        advantages = (advantages - centre) / deviation.clamp(min=1e-7)
    if cfg.policy_loss == "ppo":
        # Sample Factory's clipping: between 1/(1+e) and 1+e.
        ratios = log_ratios.exp()
        clipped = ratios.clamp(1 / (1 + cfg.ppo_clip_ratio), 1 + cfg.ppo_clip_ratio)
        policy = mean(-torch.minimum(ratios * advantages, clipped * advantages))
    else:
        policy = mean(-advantages * log_probs)

    value = cfg.value_loss_coeff * mean((targets - values) ** 2 / error_scale)
    advantage = torch.zeros_like(value)
    if actor_critic.critic is not None:
        value = value + cfg.value_loss_coeff * mean((targets - policy_values) ** 2 / error_scale)
        predicted = actor_critic.advantage_head(actor_critic.decoder(policy_in))
        of_taken = predicted.gather(1, minibatch.actions.flatten(0, 1).long()).view(batch, steps)
        advantage = cfg.advantage_loss_coeff * mean((advantages - of_taken) ** 2)
    if cfg.loss_reduction == "sum":
        value = value / 2  # the published agents' value loss is half the squared error
    entropies = distribution.entropy()
    if cfg.exploration_loss == "entropy":
        exploration = -cfg.exploration_loss_coeff * mean(entropies)
    else:
        exploration = cfg.exploration_loss_coeff * mean(distribution.symmetric_kl_with_uniform_prior()).clamp(max=30)
    behaviour = get_action_distribution(actor_critic.action_space, minibatch.action_logits.flatten(0, 1))
    kl = mean(distribution.kl_divergence(behaviour))
    behaviour_kl = cfg.kl_loss_coeff * kl

    total = policy + value + exploration + behaviour_kl + advantage
    consistency = torch.zeros_like(total)
    if "moved" in minibatch:
        as_seen = get_action_distribution(actor_critic.action_space, heads["action_logits"].detach())
        moved = _core_outputs(actor_critic, minibatch.moved, minibatch)[:, :-1].flatten(0, 1)
        outputs = actor_critic.forward_tail(moved, values_only=False, sample_actions=False)["values"]
        moved_values = outputs.view(batch, steps) if popart is None else popart.values(outputs, games)
        policies_apart = as_seen.kl_divergence(actor_critic.action_distribution()).view(batch, steps)
        values_apart = (policy_values.detach() - moved_values) ** 2 / error_scale
        consistency = cfg.augment_consistency * mean(policies_apart + values_apart / 2)
        total = total + consistency
    if cfg.loss_reduction == "sum":
        total = total * count
    return Losses(
        total,
        policy.detach(),
        value.detach(),
        exploration.detach(),
        behaviour_kl.detach(),
        advantage.detach(),
        consistency.detach(),
        mean(entropies).detach(),
        kl.detach(),
        log_ratios.detach().exp(),
        values.detach(),
        targets,
        advantages,
    )


def _core_outputs(actor_critic: Any, observations: Any, minibatch: Any) -> Tensor:
    """What the heads read, [B, T+1, features]."""
    batch, steps = minibatch.dones.shape
    features = actor_critic.forward_head(_flat(observations)).unflatten(0, (batch, steps + 1))
    # An episode that ended at step t makes t+1 the first of the next one; the state at step 0 is already right.
    resets = torch.zeros(batch, steps + 1, dtype=torch.bool, device=features.device)
    resets[:, 1:] = minibatch.dones
    return actor_critic.core.sequence(features, minibatch.state, resets)[0]


def _flat(observations: Any) -> dict[str, Tensor]:
    """Entries [B, T+1, …] -> [B * (T+1), …]."""
    return {name: entry.flatten(0, 1) for name, entry in observations.items()}
