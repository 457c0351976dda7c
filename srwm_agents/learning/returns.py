"""V-trace: off-policy corrected value targets and advantages."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from srwm_agents.ops.checks import check_shape


class VTraceReturns(NamedTuple):
    """V-trace targets and advantages of a batch of trajectories, both without gradient."""

    targets: Tensor
    """[B, T]: v_s, the regression targets of the value function."""
    advantages: Tensor
    """[B, T]: rho_s times the advantage of :func:`bootstrapped_advantages`, the weights of the policy gradient."""


@torch.no_grad()
def vtrace(
    log_rhos: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    *,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
    lambda_: float = 1.0,
) -> VTraceReturns:
    """V-trace targets and policy-gradient advantages.

    Source: Espeholt et al., "IMPALA", ICML 2018 (arXiv:1802.01561), eq. (1), remark 1 (the recursion), remark 2
    (lambda) and section 4.2 (the advantage). No deviation: the policy gradient's rho is clipped at the same
    ``clip_rho``.

    ``lambda_`` multiplies the trace, c_s = lambda min(c-bar, rho_s), whatever the ratio is; ``clip_c`` alone bounds
    it. On-policy and with clips of at least 1, the advantages are those of GAE(lambda) (Schulman et al., 2016,
    arXiv:1506.02438, eq. 16) and the targets are V plus them.

    Args:
        log_rhos: [B, T], log pi(a_t|x_t) - log mu(a_t|x_t), learner's minus behaviour's.
        rewards: [B, T].
        discounts: [B, T]; gamma, or 0 where the episode ended at step t.
        values: [B, T], V(x_t) of the learner.
        bootstrap_value: [B], V(x_T): the value of the state after the last step.
        clip_rho: rho-bar; Espeholt et al. assume rho-bar >= c-bar, which is not checked.
        clip_c: c-bar.
        lambda_: from 0 (one-step targets) to 1 (V-trace as published).

    Raises:
        ValueError: shapes that disagree; ``lambda_`` out of range.
    """
    if log_rhos.dim() != 2:
        raise ValueError(f"log_rhos has shape {list(log_rhos.shape)}, expected [B, T]")
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ is {lambda_}, expected from 0 to 1")
    batch, steps = log_rhos.shape
    for name, tensor in (("rewards", rewards), ("discounts", discounts), ("values", values)):
        check_shape(name, tensor, (batch, steps), "[B, T]")
    check_shape("bootstrap_value", bootstrap_value, (batch,), "[B]")

    rhos = log_rhos.exp()
    clipped_rhos = rhos.clamp(max=clip_rho)
    cs = lambda_ * rhos.clamp(max=clip_c)
    deltas = clipped_rhos * (rewards + discounts * _following(values, bootstrap_value) - values)

    # v_s - V(x_s) = delta_s + discount_s c_s (v_{s+1} - V(x_{s+1})), by a parallel scan (recursive doubling) in log2 T
    # rounds: on a GPU a launch costs more than this arithmetic, so T rounds would take far longer.
    corrections, factors = deltas, discounts * cs
    reach = 1
    while reach < steps:
        corrections = corrections + factors * functional.pad(corrections[:, reach:], (0, reach))
        factors = factors * functional.pad(factors[:, reach:], (0, reach))
        reach *= 2
    targets = values + corrections
    advantages = bootstrapped_advantages(targets, rewards, discounts, values, bootstrap_value, lambda_=lambda_)
    return VTraceReturns(targets, clipped_rhos * advantages)


@torch.no_grad()
def bootstrapped_advantages(
    targets: Tensor,
    rewards: Tensor,
    discounts: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    *,
    lambda_: float = 1.0,
) -> Tensor:
    """Advantages without rho, r_s + discount_s (lambda v_{s+1} + (1 - lambda) V(x_{s+1})) - V(x_s), [B, T].

    For losses that contain the ratio themselves, as PPO's. Arguments as in :func:`vtrace`, whose ``targets`` are v.
    """
    following_values = _following(values, bootstrap_value)
    following_targets = _following(targets, bootstrap_value)
    return rewards + discounts * torch.lerp(following_values, following_targets, lambda_) - values


def _following(values: Tensor, bootstrap_value: Tensor) -> Tensor:
    """The value of the step after each, [B, T]."""
    return torch.cat([values[:, 1:], bootstrap_value[:, None]], dim=1)
