"""Drop-in modules: a core of the registry, called as ``torch.nn.GRU`` and ``torch.nn.GRUCell`` are."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from srwm_agents.cores import CoreConfig, core_setting_names, drop_in_settings, make_core


class _CoreModule(nn.Module):
    """What the module over time and the cell share: how they are made, their sizes, a fresh state, ``repr``."""

    def __init__(
        self,
        core: str,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        *,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        **settings: Any,
    ) -> None:
        super().__init__()
        settings = {**drop_in_settings(hidden_size), **settings}
        with torch.device(device) if device is not None else nullcontext():
            self.core = make_core(
                core, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers, **settings
            )
        if dtype is not None:
            self.core.to(dtype)
        self.core_name = core
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.state_size = self.core.state_size

    def extra_repr(self) -> str:
        config, usual = self.core.config, CoreConfig(self.input_size, self.hidden_size, self.num_layers)
        names = core_setting_names(core=self.core_name)
        chosen = [f"{name}={getattr(config, name)}" for name in names if getattr(config, name) != getattr(usual, name)]
        parts = [str(self.input_size), str(self.hidden_size), f"num_layers={self.num_layers}"]
        return ", ".join([*parts, f"core={self.core_name!r}", f"state_size={self.state_size}", *chosen])


class SRWM(_CoreModule):
    """A self-referential weight matrix, or any other core of the registry, called as ``torch.nn.GRU`` is.

    ``out, state = module(x, state)``: inputs and outputs have a GRU's shapes, ``state`` may be left out, and zeros are
    a fresh state. Two things differ. The state is one flat tensor [1, B, state_size], not [num_layers, B, hidden_size],
    and ``state_size`` is larger than ``hidden_size``: :meth:`initial_state` makes one. And ``resets`` zeroes the state
    at the start of an episode inside one call, so that nobody steps through time for it.

    The whole is a block of its own: a linear map of the input, then ``num_layers`` times (memory layer, feed-forward
    block). Source: Irie et al., ICML 2022.

    Attributes:
        core: the :class:`srwm_agents.cores.Core`, on tensors [B, T, …].
        state_size: numbers of state per episode.
        input_size, hidden_size, num_layers, batch_first: as given.

    Example:
        >>> memory = SRWM(4, 32)
        >>> out, state = memory(torch.randn(10, 3, 4))
        >>> out.shape, state.shape == (1, 3, memory.state_size)
        (torch.Size([10, 3, 32]), True)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        core: str = "srwm",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **core_settings: Any,
    ) -> None:
        """Make a module.

        Args:
            input_size: width of x.
            hidden_size: width of the output.
            num_layers: memory layers.
            batch_first: x, resets and out begin with the batch, not with time; the state does not change.
            core: a key of ``srwm_agents.cores.CORES``.
            device, dtype: of the weights; None: PyTorch's defaults.
            core_settings: other fields of :class:`srwm_agents.cores.CoreConfig`. What is left out is
                :func:`srwm_agents.cores.drop_in_settings`'.

        Raises:
            ValueError: an unknown core or setting, or a value out of range, with what is allowed.
        """
        super().__init__(
            core,
            device,
            dtype,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            **core_settings,
        )
        self.batch_first = batch_first

    def initial_state(self, batch_size: int | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zeros [1, batch_size, state_size], or [1, state_size] for None, in the weights' dtype.

        They are on the weights' device unless another is named.
        """
        state = self.core.initial_state(1 if batch_size is None else batch_size, device)
        return state if batch_size is None else state[None]

    def forward(self, x: Tensor, state: Tensor | None = None, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over time.

        Args:
            x: [T, B, input_size], with ``batch_first`` [B, T, input_size]; or one sequence, [T, input_size].
            state: [1, B, state_size], for one sequence [1, state_size]; None, as zeros: fresh.
            resets: [T, B], with ``batch_first`` [B, T], for one sequence [T]; bool or a number. Where it is True or
                nonzero the state is zeroed *before* that step. None: never.

        Returns:
            out, like x with hidden_size in the place of input_size; and the state after the last step, like ``state``.

        Raises:
            ValueError: a wrong shape, dtype or device, with the expected one.
        """
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            batched = "B, T" if self.batch_first else "T, B"
            wanted = f"[{batched}, {self.input_size}], or [T, {self.input_size}] for one sequence"
            raise ValueError(f"x has shape {list(x.shape)}, expected {wanted}")
        one = x.dim() == 2
        time_first = not one and not self.batch_first
        batch = x.shape[:0] if one else x.shape[1 if time_first else 0 :][:1]
        if state is not None and state.shape != (1, *batch, self.state_size):
            wanted = f"{[1, *batch, self.state_size]}; initial_state() makes one, None is a fresh one"
            raise ValueError(f"state has shape {list(state.shape)}, expected {wanted}")
        if resets is not None and resets.shape != x.shape[:-1]:
            raise ValueError(f"resets has shape {list(resets.shape)}, expected {list(x.shape[:-1])}, as x")
        if one:
            x, resets = x[None], None if resets is None else resets[None]
        elif time_first:
            x, resets = x.transpose(0, 1), None if resets is None else resets.transpose(0, 1)
        out, final = self.core(x, state if one or state is None else state[0], resets)
        if one:
            return out[0], final
        return out.transpose(0, 1) if time_first else out, final[None]

    def extra_repr(self) -> str:
        return super().extra_repr() + (", batch_first=True" if self.batch_first else "")


class SRWMCell(_CoreModule):
    """One step of :class:`SRWM`, called as ``torch.nn.LSTMCell`` is: ``out, state = cell(x, state)``.

    (``torch.nn.GRUCell`` returns one tensor, because a GRU's output is its state; here they differ.) It has SRWM's
    weights under SRWM's names: the ``state_dict`` of one loads into the other.

    Attributes:
        core: the :class:`srwm_agents.cores.Core`, on tensors [B, T, …].
        state_size: numbers of state per episode.
        input_size, hidden_size, num_layers: as given.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        num_layers: int = 1,
        core: str = "srwm",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **core_settings: Any,
    ) -> None:
        """Arguments as of :class:`SRWM`; ValueError likewise."""
        super().__init__(
            core,
            device,
            dtype,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            **core_settings,
        )

    def initial_state(self, batch_size: int | None = None, device: torch.device | str | None = None) -> Tensor:
        """Zeros [batch_size, state_size], or [state_size] for None, in the weights' dtype.

        They are on the weights' device unless another is named.
        """
        state = self.core.initial_state(1 if batch_size is None else batch_size, device)
        return state[0] if batch_size is None else state

    def forward(self, x: Tensor, state: Tensor | None = None, resets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Make one step.

        Args:
            x: [B, input_size] or [input_size].
            state: [B, state_size] or [state_size]; None, as zeros: fresh.
            resets: [B] or []; where it is True or nonzero the state is zeroed before the step. None: nowhere.

        Returns:
            out, [B, hidden_size] or [hidden_size], and the next state, like ``state``.

        Raises:
            ValueError: a wrong shape, dtype or device, with the expected one.
        """
        if x.dim() not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(f"x has shape {list(x.shape)}, expected [B, {self.input_size}] or [{self.input_size}]")
        batch = x.shape[:-1]
        if state is not None and state.shape != (*batch, self.state_size):
            wanted = f"{[*batch, self.state_size]}; initial_state() makes one, None is a fresh one"
            raise ValueError(f"state has shape {list(state.shape)}, expected {wanted}")
        if resets is not None and resets.shape != batch:
            raise ValueError(f"resets has shape {list(resets.shape)}, expected {list(batch)}")
        rows = x.reshape(-1, 1, self.input_size)
        state = None if state is None else state.reshape(rows.shape[0], self.state_size)
        out, final = self.core(rows, state, None if resets is None else resets.reshape(-1, 1))
        return out.reshape(*batch, self.hidden_size), final.reshape(*batch, self.state_size)
