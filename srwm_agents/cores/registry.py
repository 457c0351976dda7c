"""The names of the cores. A new memory layer in the common stack is one line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from srwm_agents.cores.base import Core
from srwm_agents.cores.config import CoreConfig
from srwm_agents.cores.feedforward import FeedForwardCore
from srwm_agents.cores.recurrent import GRUCore, LSTMCore
from srwm_agents.cores.stack import NoCarryCore, StackCore
from srwm_agents.layers import (
    DeltaLayer,
    FakeSRLayer,
    FFMLayer,
    GatedDeltaLayer,
    IntrospectiveLayer,
    MinGRULayer,
    MLSTMLayer,
    SHMLayer,
    SRDeltaLayer,
    SRWMLayer,
)

CORES: dict[str, Callable[[CoreConfig], Core]] = {
    "srwm": partial(StackCore, layer=SRWMLayer),
    "srwm_no_carry": partial(NoCarryCore, layer=SRWMLayer),
    "sr_delta": partial(StackCore, layer=SRDeltaLayer),
    "delta": partial(StackCore, layer=DeltaLayer),
    "fake_sr": partial(StackCore, layer=FakeSRLayer),
    # For small sizes: with b-bit addresses, a head of D in- and outputs has (2D + 2b + 2)(D + 2b + 1) connections
    # (D = 16: 2,378, against an SRWM's 832), all of which it reads and may rewrite at each step, in plain PyTorch.
    "introspective": partial(StackCore, layer=IntrospectiveLayer),
    "lstm": LSTMCore,
    "gru": GRUCore,
    "min_gru": partial(StackCore, layer=MinGRULayer),
    "gated_delta": partial(StackCore, layer=GatedDeltaLayer),
    "shm": partial(StackCore, layer=SHMLayer),
    "ffm": partial(StackCore, layer=FFMLayer),
    "mlstm": partial(StackCore, layer=MLSTMLayer),
    "feedforward": FeedForwardCore,
}
"""Name of a core -> what makes it from its configuration."""


def make_core(name: str, **settings: Any) -> Core:
    """Make a core by name.

    Args:
        name: a key of ``CORES``.
        settings: the fields of :class:`srwm_agents.cores.config.CoreConfig`, the same for every core; what a core has
            no use for is ignored.

    Raises:
        ValueError: an unknown name or setting, or a value out of range, with what is allowed.
    """
    if name not in CORES:
        raise ValueError(f"unknown core {name!r}, allowed: {', '.join(CORES)}")
    return CORES[name](CoreConfig.from_settings(settings))
