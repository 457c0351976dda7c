"""The names of the cores: a new core is one file and one line here."""

from __future__ import annotations

from typing import Any

from srwm_agents.cores.base import Core
from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.delta import DeltaCore
from srwm_agents.cores.fake_sr import FakeSRCore
from srwm_agents.cores.feedforward import FeedForwardCore
from srwm_agents.cores.introspective import IntrospectiveCore
from srwm_agents.cores.lstm import LSTMCore
from srwm_agents.cores.sr_delta import SRDeltaCore
from srwm_agents.cores.srwm import SRWMCore
from srwm_agents.cores.srwm_no_carry import SRWMNoCarryCore

CORES: dict[str, type[Core]] = {
    "srwm": SRWMCore,
    "srwm_no_carry": SRWMNoCarryCore,
    "sr_delta": SRDeltaCore,
    "delta": DeltaCore,
    "fake_sr": FakeSRCore,
    "introspective": IntrospectiveCore,
    "lstm": LSTMCore,
    "feedforward": FeedForwardCore,
}


def make_core(name: str, **settings: Any) -> Core:
    """Make a core by name.

    Args:
        name: a key of ``CORES``.
        settings: the fields of :class:`srwm_agents.cores.config.CoreConfig`, the same for every core.

    Raises:
        ValueError: an unknown name or setting, or a value out of range, with what is allowed.
    """
    if name not in CORES:
        raise ValueError(f"unknown core {name!r}, allowed: {', '.join(CORES)}")
    return CORES[name](CoreConfig.from_settings(settings))
