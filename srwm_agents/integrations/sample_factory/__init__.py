"""Sample Factory: our cores in a program of one's own, or the whole of Procgen training on its asynchronous engine.

``add_core_arguments``, ``finish_core_config`` and ``register_core`` need Sample Factory only. ``register`` and
``train`` bring our Procgen environment, encoder, actor-critic and learner, and what these need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srwm_agents.envs.simulator import hush_gym
from srwm_agents.extras import require

if TYPE_CHECKING:
    from srwm_agents.integrations.sample_factory.core import (
        ConfigError,
        add_core_arguments,
        finish_core_config,
        register_core,
    )
    from srwm_agents.integrations.sample_factory.recording import RunRecorder
    from srwm_agents.integrations.sample_factory.training import TrainingResult, register, train

require("train", "sample_factory")
hush_gym()  # Sample Factory imports gym, so this must come first, in workers too

__all__ = [
    "ConfigError",
    "RunRecorder",
    "TrainingResult",
    "add_core_arguments",
    "finish_core_config",
    "register",
    "register_core",
    "train",
]

_MODULES = {
    "core": ("ConfigError", "add_core_arguments", "finish_core_config", "register_core"),
    "recording": ("RunRecorder",),
    "training": ("TrainingResult", "register", "train"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the cores alone need nothing of training."""
    for module, names in _MODULES.items():
        if name in names:
            if module == "training":
                require("train", "gymnasium", "rich", "yaml")
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
