"""Has our environments registered as soon as gymnasium is imported.

gymnasium 1.x does not load plug-ins: by its convention, importing a package registers its environments, and
``gymnasium.make("srwm_agents:srwm/Procgen-maze-easy-v0")`` imports this package first. But this package does not import
gymnasium.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_REGISTRY = "gymnasium.envs.registration"


def register_with_gymnasium() -> None:
    """Register our environments now if gymnasium is imported, else when it is."""
    if _REGISTRY in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WhenImported())


class _WhenImported(MetaPathFinder):
    """Finds gymnasium's registry as Python does, and registers our environments once it has been executed."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    from srwm_agents.envs.registration import register

    register()
