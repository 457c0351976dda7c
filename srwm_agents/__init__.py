"""Recurrent actor-critic agents whose memory is a self-referential weight matrix."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srwm_agents.gymnasium_names import register_with_gymnasium

if TYPE_CHECKING:
    from srwm_agents.agent import Agent, AgentConfig, AgentError, load_agent, save_agent
    from srwm_agents.integrations import register
    from srwm_agents.modules import SRWM, SRWMCell
    from srwm_agents.policy import AgentPolicy, check_fits

__all__ = [
    "SRWM",
    "Agent",
    "AgentConfig",
    "AgentError",
    "AgentPolicy",
    "SRWMCell",
    "check_fits",
    "load_agent",
    "register",
    "save_agent",
]
__version__ = "0.1.0"

_MODULES = {
    "srwm_agents.agent": ("Agent", "AgentConfig", "AgentError", "load_agent", "save_agent"),
    "srwm_agents.integrations": ("register",),
    "srwm_agents.modules": ("SRWM", "SRWMCell"),
    "srwm_agents.policy": ("AgentPolicy", "check_fits"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that parts of the package need only their own dependencies."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_gymnasium()
