"""TorchRL integration: cores as a tensordict module, Procgen as an environment, agents as policies.

Only ``ProcgenEnv`` and ``make_environment`` need gymnasium and Procgen.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srwm_agents.extras import require

require("torchrl", "torchrl", "tensordict")

from srwm_agents.integrations.torchrl.module import SRWMModule  # noqa: E402
from srwm_agents.integrations.torchrl.policy import make_actor_critic  # noqa: E402
from srwm_agents.integrations.torchrl.recording import RecorderTransform  # noqa: E402

if TYPE_CHECKING:
    from srwm_agents.integrations.torchrl.environment import ProcgenEnv, make_environment

__all__ = ["ProcgenEnv", "RecorderTransform", "SRWMModule", "make_actor_critic", "make_environment"]


def __getattr__(name: str) -> Any:
    """Import what needs gymnasium only when it is asked for."""
    if name not in ("ProcgenEnv", "make_environment"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("procgen", "gymnasium")
    return getattr(import_module("srwm_agents.integrations.torchrl.environment"), name)
