"""Recurrent cores: stacks of layers behind one interface, made by name."""

from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec
from srwm_agents.cores.config import CoreConfig, core_setting_names, core_settings_of, drop_in_settings
from srwm_agents.cores.registry import CORES, make_core

__all__ = [
    "CORES",
    "Core",
    "CoreConfig",
    "StateCodec",
    "core_setting_names",
    "core_settings_of",
    "drop_in_settings",
    "make_core",
]
