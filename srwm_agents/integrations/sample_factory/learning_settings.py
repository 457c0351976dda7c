"""From a configuration to optimiser and update of :mod:`srwm_agents.learning`, and the learning rate's schedule."""

from __future__ import annotations

from typing import Any

import torch
from sample_factory.algo.learning.learner import LearningRateScheduler

from srwm_agents.integrations.sample_factory.per_game import game_value_weights
from srwm_agents.learning import GameScales, LossSettings, Update, UpdateSettings
from srwm_agents.learning.optimizers import OptimizerSettings, RatedParameters, make_optimizer
from srwm_agents.learning.pooling import Pool


def optimizer_of(cfg: Any, model: Any, name: Any) -> torch.optim.Optimizer:
    """The optimiser of a model's networks in a configuration, by name, "adam" or "rmsprop"."""
    policy, *critic = model.networks()
    networks = [RatedParameters(policy), *(RatedParameters(each, cfg.critic_lr_scale) for each in critic)]
    settings = OptimizerSettings(
        name=name,
        learning_rate=cfg.learning_rate,
        adam_betas=(cfg.adam_beta1, cfg.adam_beta2),
        adam_eps=cfg.adam_eps,
        rmsprop_alpha=cfg.rmsprop_alpha,
        rmsprop_eps=cfg.rmsprop_eps,
        rmsprop_momentum=cfg.rmsprop_momentum,
    )
    return make_optimizer(networks, settings, captured=cfg.cuda_graphs)


def update_of(cfg: Any, model: Any, optimizer: torch.optim.Optimizer, scales: GameScales | None, pool: Pool) -> Update:
    """The update of a model in a configuration."""
    weights: torch.Tensor | None = None
    if cfg.game_value_coeffs:
        weights = torch.tensor(game_value_weights(cfg), device=next(model.parameters()).device)
    return Update(
        model, optimizer, update_settings(cfg),
        scales=scales, value_weights=weights, pool=pool, captured=cfg.cuda_graphs,
    )  # fmt: skip


def update_settings(cfg: Any) -> UpdateSettings:
    """An update's settings in a configuration."""
    loss = LossSettings(
        policy_loss=cfg.policy_loss,
        clip_rho=cfg.vtrace_rho,
        clip_c=cfg.vtrace_c,
        lambda_=cfg.vtrace_lambda,
        ppo_clip_ratio=cfg.ppo_clip_ratio,
        normalize_advantages=cfg.normalize_advantages,
        # The published agents sum losses and take half the squared error.
        value_coeff=cfg.value_loss_coeff / (2 if cfg.loss_reduction == "sum" else 1),
        advantage_coeff=cfg.advantage_loss_coeff,
        advantage_baseline=cfg.advantage_baseline,
        exploration_loss=cfg.exploration_loss,
        exploration_coeff=cfg.exploration_loss_coeff,
        behaviour_kl_coeff=cfg.kl_loss_coeff,
        consistency_coeff=cfg.augment_consistency,
        reduction=cfg.loss_reduction,
    )
    return UpdateSettings(loss, max(0.0, cfg.max_grad_norm), cfg.augment_shift)


class LinearFrameDecay(LearningRateScheduler):
    """Learning rate proportional to the remaining frames.

    It depends on the frame count alone, so a resumed run continues it; Sample Factory's own linear decay restarts.
    """

    def __init__(self, learner: Any) -> None:
        """``learner``: Sample Factory's, whose configuration and frame count it follows."""
        self._learner = learner

    def update(self, current_lr: float | None, recent_kls: list[float]) -> float:
        cfg = self._learner.cfg
        return cfg.learning_rate * max(0.0, 1 - self._learner.env_steps / cfg.train_for_env_steps)

    def invoke_after_each_minibatch(self) -> bool:  # type: ignore[override]  (declared as returning False)
        return True
