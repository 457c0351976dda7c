"""Cores as a recurrent TorchRL module, in place of TorchRL's ``LSTMModule``."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import NestedKey, TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor
from torchrl.data import Unbounded
from torchrl.envs import TensorDictPrimer
from torchrl.modules import recurrent_mode

from srwm_agents.cores import make_core
from srwm_agents.cores.base import Core
from srwm_agents.cores.codec import StateCodec

IS_INIT = "is_init"
"""The entry of TorchRL's ``InitTracker``: True at an episode's first step."""


class SRWMModule(TensorDictModuleBase):
    """A core of the registry with the interface of :class:`torchrl.modules.LSTMModule`.

    Step by step (a collector's mode) it reads one step of every environment and writes the next state under
    ``("next", …)``, from where TorchRL carries it to the next step. In recurrent mode (``set_recurrent_mode(True)``,
    which TorchRL's losses turn on, and its value estimators do not) the last batch dimension is time: the state is
    taken from the first step, and all steps are one call of the core. In both modes ``is_init`` zeroes the state before
    its step.

    Deviations from ``LSTMModule``: that one replaces a missing state by zeros; here a missing state or ``is_init`` is
    an error, because a policy without its primer would run and train without memory. And episodes that end inside a
    rollout are not split and padded: the core takes resets.
    """

    def __init__(
        self,
        core: str | Core = "srwm",
        *,
        in_key: NestedKey = "embed",
        out_key: NestedKey = "embed",
        state_key: str = "recurrent_state",
        state_format: Literal["flat", "natural"] = "flat",
        default_recurrent_mode: bool = False,
        device: torch.device | str | None = None,
        **settings: Any,
    ) -> None:
        """Make a module.

        Args:
            core: name of a core, a key of ``srwm_agents.cores.CORES``, or a finished core (then no ``settings``).
            in_key: key of the input [*batch, input_size].
            out_key: key of the output [*batch, output_size]; may be the same.
            state_key: key of the state, read under it and written under ("next", state_key).
            state_format: "flat", one entry [*batch, state_size]; or "natural", one entry for each part of the state in
                its own shape (``core.state_shapes``), named state_key + "_0", "_1", …: for an SRWM of two layers y, q,
                k, beta of the first, then of the second. A core without memory has no entry.
            default_recurrent_mode: the mode where ``set_recurrent_mode`` says nothing.
            device: of the weights.
            settings: keyword arguments of ``make_core``: input_size, hidden_size, num_layers, …

        Raises:
            ValueError: an unknown core, setting or state_format.
        """
        super().__init__()
        if isinstance(core, Core) and settings:
            raise ValueError(f"a finished core takes no settings, but {', '.join(settings)} came with it")
        if state_format not in ("flat", "natural"):
            raise ValueError(f"state_format is {state_format!r}, allowed: flat, natural")
        self.core = core if isinstance(core, Core) else make_core(core, **settings)
        if device is not None:
            self.core.to(device)
        self.default_recurrent_mode = default_recurrent_mode
        self.state_format = state_format
        if state_format == "flat":
            shapes: tuple[tuple[int, ...], ...] = ((self.core.state_size,),) if self.core.state_size else ()
            self.state_keys = [state_key] * len(shapes)
        else:
            shapes = self.core.state_shapes
            self.state_keys = [f"{state_key}_{i}" for i in range(len(shapes))]
        self._codec = StateCodec(shapes)
        self.in_key, self.out_key = unravel_key(in_key), unravel_key(out_key)
        self.in_keys: Any = [self.in_key, *self.state_keys, IS_INIT]
        self.out_keys: Any = [self.out_key, *(("next", key) for key in self.state_keys)]

    @property
    def recurrent_mode(self) -> bool:
        """Whether the last batch dimension is time; change it with ``torchrl.modules.set_recurrent_mode``."""
        mode = recurrent_mode()
        return self.default_recurrent_mode if mode is None else mode

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The transform that adds the state to the environment's specs and zeros to each episode's first step.

        Without it TorchRL does not carry the state. For environments with or without a batch dimension.
        """
        primers: Any = {
            key: Unbounded(shape=torch.Size(shape))
            for key, shape in zip(self.state_keys, self._codec.shapes, strict=True)
        }
        return TensorDictPrimer(primers, expand_specs=True)

    @dispatch  # type: ignore[reportArgumentType]  (declared as taking a separator only)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:  # type: ignore[override]
        """Read input, state and ``is_init``; write output and next state.

        In recurrent mode the next state written at every step is the one after the last step (an expanded view): the
        states in between are not computed.

        Raises:
            KeyError: the input, the state (the primer was forgotten) or is_init (the InitTracker was forgotten).
            ValueError: an entry of the wrong shape, or on another device than the weights.
        """
        over_time = self.recurrent_mode
        batch_shape = tensordict.batch_size
        if over_time and not batch_shape:
            raise ValueError("in recurrent mode the tensordict needs a time dimension, its batch size is []")
        time = batch_shape[-1] if over_time else 1
        rows = (batch_shape[:-1] if over_time else batch_shape).numel()
        x = self._entry(tensordict, self.in_key, (self.core.input_size,), "the module's input")
        parts = [
            self._entry(
                tensordict, key, shape, "append module.make_tensordict_primer() to the environment's transforms"
            )
            for key, shape in zip(self.state_keys, self._codec.shapes, strict=True)
        ]
        is_init = self._entry(tensordict, IS_INIT, (1,), "append InitTracker() to the environment's transforms")

        x = x.reshape(rows, time, self.core.input_size)
        resets = is_init.reshape(rows, time)
        firsts = [part.reshape(rows, time, *shape)[:, 0] for part, shape in zip(parts, self._codec.shapes, strict=True)]
        state = self._codec.pack(firsts, rows).to(x.device)
        out, state = self.core(x, state, resets)

        tensordict.set(self.out_key, out.reshape(*batch_shape, self.core.output_size))
        for key, part in zip(self.state_keys, self._codec.unpack(state) if self.state_keys else (), strict=True):
            over = part[:, None].expand(-1, time, *part.shape[1:])
            tensordict.set(("next", key), over.reshape(*batch_shape, *part.shape[1:]))
        return tensordict

    def _entry(self, tensordict: TensorDictBase, key: NestedKey, shape: tuple[int, ...], remedy: str) -> Tensor:
        entry: Any = tensordict.get(key, None)
        if entry is None:
            raise KeyError(f"SRWMModule finds no entry {key!r}: {remedy}")
        expected = (*tensordict.batch_size, *shape)
        if tuple(entry.shape) != expected and not (key == IS_INIT and tuple(entry.shape) == expected[:-1]):
            raise ValueError(f"entry {key!r} has shape {list(entry.shape)}, expected {list(expected)}")
        device = next(self.core.parameters()).device
        if entry.device != device:
            raise ValueError(
                f"entry {key!r} is on {entry.device}, the module's weights are on {device}: move one of them"
            )
        return entry
