"""The list of the cores' settings that flags, saved configurations, few-shot settings and cards are made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from srwm_agents.command_help import Shown
from srwm_agents.ops.srwm import BACKENDS
from srwm_agents.settings import Range, check_choices, check_ranges, check_types, setting

_SRWM = ("srwm", "srwm_no_carry", "sr_delta")
_HEADS = (*_SRWM, "delta", "fake_sr", "introspective", "gated_delta", "shm", "mlstm")
_LAYERS = (*_HEADS, "min_gru", "ffm")


def _used_by(
    cores: tuple[str, ...] | None,
    default: Any,
    help: str,
    choices: Collection[str] | None = None,
    may_change: bool = False,
    **options: Any,
) -> Any:
    return setting(default, help, choices, cores=cores, may_change=may_change, **options)


_AT_LEAST_1 = Range(1)
_FEW_NEED = Shown.NAMED


@dataclass(frozen=True)
class CoreConfig:
    """The keyword arguments of :func:`srwm_agents.cores.make_core`, the same for every core.

    A comparison gives all its cores one set of settings, so a core accepts and ignores what it has no use for. Each
    field's metadata says what it is (``help``), which cores use it (``cores``: their names, None for all) and whether
    an experiment may go on with another value (``may_change``).
    """

    input_size: int = _used_by(None, MISSING, "Width of the core's input", allowed=_AT_LEAST_1)
    hidden_size: int = _used_by(
        None, 128, "Width of the residual stream (lstm, gru: of their layers) and output", allowed=_AT_LEAST_1
    )
    num_layers: int = _used_by(
        None, 2, "Memory layers, each with a feed-forward block (not lstm, gru)", allowed=_AT_LEAST_1
    )
    num_heads: int = _used_by(_HEADS, 8, "Heads of each memory layer; must divide hidden_size", allowed=_AT_LEAST_1)
    ff_size: int = _used_by((*_LAYERS, "feedforward"), 512, "Width inside feed-forward blocks", allowed=_AT_LEAST_1)
    input_softmax: bool = _used_by((*_SRWM, "fake_sr"), True, "Softmax over each SRWM head's inputs")
    input_norm: bool = _used_by(
        (*_LAYERS, "lstm", "gru"),
        False,
        "Layer norm before each memory layer (lstm, gru: before the first, after an embedding)",
        shown=_FEW_NEED,
    )
    beta_mean: float = _used_by(
        _SRWM, 0.0, "Mean of the initial weights that make an SRWM's learning rates", shown=_FEW_NEED
    )
    beta_bias: float = _used_by(
        _SRWM,
        0.0,
        "Initial bias of the learning rates by which an SRWM rewrites what makes its queries, keys and learning rates; "
        "0, as published: no biases",
        shown=_FEW_NEED,
    )
    query_scale: float = _used_by(
        _SRWM, 1.0, "Factor on the initial weights that make an SRWM's queries", shown=_FEW_NEED
    )
    state_decay: float = _used_by(
        _SRWM,
        1.0,
        "Factor on an SRWM's state at each step; 1, as published: none",
        allowed=Range(0, 1, open_low=True),
    )
    state_limit: float = _used_by(
        _SRWM,
        0.0,
        "Largest size of an SRWM's state in units of its slow weights; 0, as published: no limit",
        may_change=True,
        allowed=Range(0),
        shown=_FEW_NEED,
    )
    unit_keys: bool = _used_by(_SRWM, False, "SRWM queries and keys of length 1; off, as published: of sum 1")
    dropout: float = _used_by(
        None,
        0.0,
        "Dropout while training (lstm, gru: between their layers)",
        allowed=Range(0, 1, open_high=True),
    )
    detach_state_every_step: bool = _used_by(
        _SRWM,
        False,
        "Cut the gradient through an SRWM's state at every step, as the published RL code did",
        shown=_FEW_NEED,
    )
    rollout_length: int = _used_by(
        ("srwm_no_carry",), 50, "Steps after which srwm_no_carry drops its state", allowed=_AT_LEAST_1
    )
    trace_size: int = _used_by(
        ("ffm",), 32, "Traces of an ffm layer, each of a decay of its own", allowed=_AT_LEAST_1, shown=_FEW_NEED
    )
    context_size: int = _used_by(
        ("ffm",), 4, "Angles by which each of an ffm layer's traces turns", allowed=_AT_LEAST_1, shown=_FEW_NEED
    )
    backend: str = _used_by(
        (*_SRWM, "delta"),
        "auto",
        "Backend of the core's op. auto takes Triton on a GPU, on a CPU C that is compiled there (this needs cc or the "
        "extra cpu), else naive, which is several times slower",
        BACKENDS,
        may_change=True,
        shown=_FEW_NEED,
    )

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self)
        check_choices(self)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> CoreConfig:
        """Make a config, naming an unknown setting and the known ones in the error."""
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                raise ValueError(f"unknown core setting {name!r}, allowed: {', '.join(known)}")
        if "input_size" not in settings:
            raise ValueError("input_size is missing: the width of the core's input")
        return cls(**settings)


def core_setting_names(
    *, exclude: Collection[str] = (), core: str | None = None, fixed: bool = False
) -> tuple[str, ...]:
    """Names of the settings that a user chooses: all fields of :class:`CoreConfig` but input_size, in their order.

    Args:
        exclude: names to leave out, for a caller that derives them from something else.
        core: leave out what this core has no use for; None leaves in what any core uses.
        fixed: leave out what may change between the starts of an experiment.
    """
    return tuple(
        field.name
        for field in fields(CoreConfig)
        if field.name != "input_size"
        and field.name not in exclude
        and not (fixed and field.metadata["may_change"])
        and (core is None or field.metadata["cores"] is None or core in field.metadata["cores"])
    )


def core_settings_of(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a core that ``mapping`` has, with anything else left out."""
    return {name: mapping[name] for name in core_setting_names() if name in mapping}


def drop_in_settings(hidden_size: int) -> dict[str, Any]:
    """Settings for a core in the place of a GRU, where nothing is known of the task: :class:`srwm_agents.SRWM`'s.

    Beside :class:`CoreConfig`'s own defaults, which are as published and for image features: inputs are numbers, not
    choices (a layer norm in place of the softmax); queries and keys differ from the first step on; and the state
    decays, so that over a long episode it grows no larger than over the short rollouts of training.

    Args:
        hidden_size: of the core; it sets num_heads, the most of 8, 4, 2 that are at least 8 wide (else 1), and ff_size.
    """
    heads = [heads for heads in (8, 4, 2) if hidden_size % heads == 0 and hidden_size // heads >= 8]
    return {
        "num_heads": heads[0] if heads else 1,
        "ff_size": 4 * hidden_size,
        "input_softmax": False,
        "input_norm": True,
        "query_scale": 3.0,
        "state_decay": 0.9,
    }
