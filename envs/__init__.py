"""The names of :mod:`srwm_agents.envs`, for programs that run in a checkout; an installed package has no ``envs``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import srwm_agents.envs
from srwm_agents.envs import __all__ as __all__

if TYPE_CHECKING:
    from srwm_agents.envs import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'envs' has no attribute {name!r}")
    return getattr(srwm_agents.envs, name)
