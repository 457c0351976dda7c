"""The net's units and connections, and the connections' binary addresses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from srwm_agents.limits import MAX_PARAMETERS, check_limit


@dataclass(frozen=True)
class Wiring:
    """The units and connections of an introspective net; Schmidhuber 1993, section 'The introspective network'.

    Each of the ``num_sources`` units (inputs and non-inputs) has a connection to each of the ``num_units`` non-input
    units. In memory, sources stand in the order x, eval, val, y, and the non-input units y in the order output,
    hidden, ana, mod, delta; the slices below cut them. Connection w_ij, from source j to unit i, has the number
    ``i * num_sources + j``, whose binary digits, most significant first, are its address.

    The paper's n_ana = n_mod = ceil(log2 n_conn) is circular, since the pointers' units have connections, too; the
    smallest number of bits that satisfies it is used.
    """

    num_inputs: int
    """n_x, the 'normal' inputs x."""
    num_outputs: int
    """n_o, the 'normal' outputs o."""
    num_hidden: int = 0
    """Hidden units: non-input units besides outputs, pointers and Δ."""
    num_evals: int | None = None
    """n_eval: eval unit k shows the last error of output k. None: one an output; fewer: the first outputs' only."""
    num_bits: int = field(init=False)
    """n_ana = n_mod = ceil(log2 num_connections)."""

    def __post_init__(self) -> None:
        if self.num_evals is None:
            object.__setattr__(self, "num_evals", self.num_outputs)
        for name, least in (("num_inputs", 1), ("num_outputs", 1), ("num_hidden", 0), ("num_evals", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if self.evals > self.num_outputs:
            raise ValueError(f"num_evals is {self.evals}, expected at most num_outputs = {self.num_outputs}")
        bits = 0
        while (needed := (self._connections(bits) - 1).bit_length()) > bits:
            bits = needed
        object.__setattr__(self, "num_bits", bits)

    def _connections(self, bits: int) -> int:
        units = self.num_outputs + self.num_hidden + 2 * bits + 1
        return (self.num_inputs + self.evals + 1 + units) * units

    @property
    def evals(self) -> int:
        """``num_evals`` without None."""
        assert self.num_evals is not None
        return self.num_evals

    @property
    def num_units(self) -> int:
        """n_y, the non-input units."""
        return self.num_outputs + self.num_hidden + 2 * self.num_bits + 1

    @property
    def num_sources(self) -> int:
        """n_I + n_y, all units; n_I = num_inputs + num_evals + 1 (val)."""
        return self.num_inputs + self.evals + 1 + self.num_units

    @property
    def num_connections(self) -> int:
        """n_conn, the number of connections."""
        return self.num_units * self.num_sources

    @property
    def output(self) -> slice:
        """The 'normal' outputs o among the units."""
        return slice(0, self.num_outputs)

    @property
    def hidden(self) -> slice:
        """The hidden units among the units."""
        return slice(self.num_outputs, self.num_outputs + self.num_hidden)

    @property
    def ana(self) -> slice:
        """The reading pointer among the units."""
        return slice(self.hidden.stop, self.hidden.stop + self.num_bits)

    @property
    def mod(self) -> slice:
        """The writing pointer among the units, directly after ana."""
        return slice(self.ana.stop, self.ana.stop + self.num_bits)

    @property
    def delta(self) -> slice:
        """The unit Δ, the last one."""
        return slice(self.num_units - 1, self.num_units)

    def addresses(self) -> Tensor:
        """The connections' addresses, float64 [num_connections, num_bits] of 0 and 1, most significant bit first.

        Raises:
            LimitError: they would have more numbers than a tenth of the largest model's: each is held several times.
        """
        what = f"bits in the addresses of {self.num_connections:,} connections"
        check_limit(self.num_connections * self.num_bits, MAX_PARAMETERS, what, times=0.1)
        numbers = torch.arange(self.num_connections)[:, None]
        places = torch.arange(self.num_bits - 1, -1, -1)
        return (numbers >> places & 1).double()

    def unit_names(self) -> list[str]:
        """The names of the units in plots and traces."""
        parts = [("o", self.num_outputs), ("h", self.num_hidden), ("ana", self.num_bits), ("mod", self.num_bits)]
        return [*(f"{name}{k}" for name, size in parts for k in range(size)), "Δ"]

    def source_names(self) -> list[str]:
        """The names of all sources."""
        inputs = [*(f"x{k}" for k in range(self.num_inputs)), *(f"eval{k}" for k in range(self.evals)), "val"]
        return [*inputs, *self.unit_names()]

    def connection_name(self, number: int) -> str:
        """``"o0<-x1"``: the connection from x1 to o0."""
        unit, source = divmod(number, self.num_sources)
        return f"{self.unit_names()[unit]}<-{self.source_names()[source]}"
