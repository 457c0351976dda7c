"""One set of settings for every core."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class CoreConfig:
    """The keyword arguments of :func:`srwm_agents.cores.make_core`, the same for every core.

    A field that a core has no use for is accepted and ignored; each field says who uses it.
    """

    input_size: int
    """Width of the core's input. All cores."""
    hidden_size: int = 128
    """Width of the residual stream, and of the output. All cores."""
    num_layers: int = 2
    """Memory layers, each followed by a feed-forward block (lstm: LSTM layers). All cores."""
    num_heads: int = 8
    """Heads a layer; must divide hidden_size. Not lstm, feedforward."""
    ff_size: int = 512
    """Width inside the feed-forward blocks. Not lstm."""
    input_softmax: bool = True
    """Softmax over each head's inputs. srwm, srwm_no_carry, sr_delta, fake_sr."""
    input_norm: bool = False
    """Layer norm before the heads (lstm: before its first layer). Not feedforward."""
    beta_mean: float = 0.0
    """Mean of W_beta's initial entries. srwm, srwm_no_carry, sr_delta."""
    query_scale: float = 1.0
    """Factor on W_q's initial entries. srwm, srwm_no_carry, sr_delta."""
    state_decay: float = 1.0
    """Factor on the matrix's shift at each step; with 1, the published rule, nothing bounds it in long episodes, with
    less the memory is shorter. srwm, srwm_no_carry, sr_delta (its SRWM)."""
    state_limit: float = 0.0
    """Largest size of a matrix's shift that a call hands on, in units of its slow weights; 0 for none, as published.
    srwm, srwm_no_carry, sr_delta (its SRWM)."""
    unit_keys: bool = False
    """Queries and keys of Euclidean length 1, so that no update multiplies what it finds along its key; without, of sum
    1, as published. srwm, srwm_no_carry, sr_delta (its SRWM)."""
    dropout: float = 0.0
    """In training mode only. Not lstm with one layer."""
    detach_state_every_step: bool = False
    """Cut the gradient through the state at every step, as the published RL code did. srwm, srwm_no_carry, sr_delta."""
    rollout_length: int = 50
    """Steps after which srwm_no_carry drops its state. srwm_no_carry only."""
    backend: str = "auto"
    """Of the op. srwm, srwm_no_carry, sr_delta, delta."""

    def __post_init__(self) -> None:
        for name in ("input_size", "hidden_size", "num_layers", "num_heads", "ff_size", "rollout_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected 0 <= dropout < 1")
        if not 0 < self.state_decay <= 1:
            raise ValueError(f"state_decay is {self.state_decay}, expected 0 < state_decay <= 1")
        if self.state_limit < 0:
            raise ValueError(f"state_limit is {self.state_limit}, expected at least 0 (0: no limit)")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> CoreConfig:
        """Make a config, naming an unknown setting and the known ones in the error."""
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise ValueError(f"unknown core setting {name!r}, allowed: {', '.join(known)}")
        if "input_size" not in settings:
            raise ValueError("input_size is missing: the width of the core's input")
        return cls(**settings)
