"""Reads a core's memory while it acts, without changing what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from srwm_agents.cores import Core
from srwm_agents.inspection.layout import Layer, Reading, layers_of, matrix_names, read_layer
from srwm_agents.layers import MemoryLayer


class Reader:
    """Keeps what a core's last acting step (a call with T = 1) left in its state, of some rows of the batch.

    Learning rates are recomputed from the layers' inputs and the state before the step
    (:meth:`srwm_agents.layers.MemoryLayer.choices`); matrices are the state after it. Calls over more than one step,
    as learners make them, are ignored.
    """

    def __init__(self, core: Core, rows: Sequence[int]) -> None:
        """``rows``: of the batch that are read."""
        self.core, self.rows = core, list(rows)
        self.layers: list[Layer] = layers_of(core)
        self._memories = [layer for layer in core.memory_layers if matrix_names(layer)]
        self._choices: list[dict[str, Tensor]] = [{} for _ in self._memories]
        self._handles: list[Any] = []
        self.listening = True
        """Whether calls are read while it is attached."""
        self.states: tuple[Tensor, Tensor] | None = None
        """Before and after the last acting step, of these rows, [R, state_size]; None before the first."""

    def attach(self) -> None:
        """Begin to read."""
        for index, layer in enumerate(self._memories):

            def listen(module: MemoryLayer, arguments: tuple[Any, ...], _out: Any, index: int = index) -> None:
                self._read_choices(index, module, *arguments)

            self._handles.append(layer.register_forward_hook(listen))
        self._handles.append(self.core.register_forward_hook(self._read_states, with_kwargs=True))

    def detach(self) -> None:
        """Stop reading; what was read stays."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def _read_choices(
        self, index: int, layer: MemoryLayer, h: Tensor, state: tuple[Tensor, ...], resets: Tensor | None = None
    ) -> None:
        if not self.listening or h.shape[1] != 1 or not self.layers[index].rates or max(self.rows) >= len(h):
            return
        rows = torch.as_tensor(self.rows, device=h.device)
        first = None if resets is None else resets[rows]
        self._choices[index] = layer.choices(h[rows], tuple(part[rows] for part in state), first)

    @torch.no_grad()
    def _read_states(self, core: Core, arguments: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        call = dict(zip(("x", "state", "resets"), arguments, strict=False)) | named
        x, before, after = call["x"], call.get("state"), out[1]
        if not self.listening or x.shape[1] != 1:
            return
        if max(self.rows) >= len(x):
            raise ValueError(f"rows has {max(self.rows)}, but the core acts for {len(x)} environments")
        rows = torch.as_tensor(self.rows, device=x.device)
        before = torch.zeros_like(after) if before is None else before
        resets = call.get("resets")
        begin = before[rows]
        if resets is not None:
            begin = begin.masked_fill(resets[rows, 0].bool()[:, None], 0)
        self.states = begin, after[rows].clone()

    def take(self) -> list[Reading]:
        """The last acting step's readings, one a row; ``states`` is None afterwards, so that none is taken twice."""
        assert self.states is not None
        _, after = self.states
        self.states = None
        parts = [
            part
            for layer, part in zip(self.core.memory_layers, self.core.layer_states(after), strict=False)
            if matrix_names(layer)
        ]
        sizes = after.float().norm(dim=1).tolist()
        return [
            Reading(
                tuple(
                    read_layer(layer, part, choices, row)
                    for layer, part, choices in zip(self.layers, parts, self._choices, strict=True)
                ),
                sizes[row],
            )
            for row in range(len(self.rows))
        ]
