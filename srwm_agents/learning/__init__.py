"""The learning algorithm, free of any framework: rollouts, returns, losses, and one optimiser step."""

from srwm_agents.learning.losses import (
    ActionDistribution,
    ActorCritic,
    Evaluation,
    Losses,
    LossSettings,
    actor_critic_losses,
)
from srwm_agents.learning.popart import PopArtCritic
from srwm_agents.learning.returns import VTraceReturns, vtrace
from srwm_agents.learning.rollout import Observations, Rollout
from srwm_agents.learning.scales import GameScales, ReturnScales
from srwm_agents.learning.update import Update, UpdateResult, UpdateSettings

__all__ = [
    "ActionDistribution",
    "ActorCritic",
    "Evaluation",
    "GameScales",
    "LossSettings",
    "Losses",
    "Observations",
    "PopArtCritic",
    "ReturnScales",
    "Rollout",
    "Update",
    "UpdateResult",
    "UpdateSettings",
    "VTraceReturns",
    "actor_critic_losses",
    "vtrace",
]
