"""Plug-ins for frameworks, a folder for each; beside it, distributed training alone imports some of them."""

from __future__ import annotations

from importlib import import_module

REGISTRIES = ("sample_factory", "sb3")
"""Frameworks that find what others bring by name; each folder of theirs has a ``register()``."""


def register(framework: str) -> None:
    """Make our policies, cores or environments known to a framework by their names.

    Args:
        framework: "sb3" puts "SRWMMlpPolicy", "SRWMCnnPolicy" and "SRWMMultiInputPolicy" into
            ``sb3_contrib.RecurrentPPO``; "sample_factory" puts the environment "procgen", the encoder and the cores
            into Sample Factory's factories. (gymnasium finds our environments by itself.)

    Raises:
        ValueError: an unknown framework.
        ModuleNotFoundError: the framework is not installed; the message names the extra that installs it.
    """
    if framework not in REGISTRIES:
        raise ValueError(f"unknown framework {framework!r}, allowed: {', '.join(REGISTRIES)}")
    import_module(f"srwm_agents.integrations.{framework}").register()
