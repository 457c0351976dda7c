"""The introspective net as a module: wiring, dynamics, and the initial weights as its parameter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from srwm_agents.introspective.bumps import Bump
from srwm_agents.introspective.dynamics import Dynamics, Sequences, State
from srwm_agents.introspective.gradients import sequence_loss
from srwm_agents.introspective.wiring import Wiring
from srwm_agents.ops.checks import check_alike, check_shape


class Result(NamedTuple):
    """Output of :class:`IntrospectiveNet`."""

    output: Tensor
    """[B, n_s, n_o]: the outputs in each block's last time step."""
    loss: Tensor
    """[B]: E_total, eq. (4); zeros without targets."""
    state: State
    """After the last step; pass it to the next call to continue the same sequences."""


class IntrospectiveNet(nn.Module):
    """A fully recurrent net that reads and rewrites all of its connections; J. Schmidhuber, ICANN 1993.

    ``weight`` [K, Z] is W(1), the initial weights; each sequence starts from it and rewrites a copy of its own. There
    are two methods for the exact gradient in it, with equal results:

        net(x, target).loss.sum().backward()                            # back-propagation through time
        net.loss(x, target, gradient="forward").sum().backward()        # eqs. (5)-(13), forward in time

    Decisions and deviations: :mod:`srwm_agents.introspective.dynamics` and ``gradients``.
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_hidden: int = 0,
        *,
        num_evals: int | None = None,
        steps_per_input: int = 2,
        bump: Bump | None = None,
        delta_scale: float = 1.0,
        output_activation: str = "logistic",
        init_scale: float = 1.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """Make a net.

        Args:
            num_inputs: n_x, 'normal' inputs.
            num_outputs: n_o, 'normal' outputs.
            num_hidden: units besides outputs, pointers and Δ; 0 can suffice, as the pointers' units are recurrent, too.
            num_evals: n_eval, inputs that show the last errors; None: one an output.
            steps_per_input: n_r, time steps for which each input is shown; with 1 an output cannot depend on its input.
            bump: g; None for ``Gaussian()``.
            delta_scale: the largest weight change a step; 0 forces Δ to 0.
            output_activation: "logistic" | "tanh".
            init_scale: the initial weights are drawn from N(0, init_scale² / Z), Z the number of sources.
            generator: of the initial weights, on the CPU; None for PyTorch's.
            dtype: float32 or float64; None for PyTorch's default.
            device: of everything; None for PyTorch's default.

        Raises:
            ValueError: a number out of range, naming it and what is allowed.
        """
        super().__init__()
        if steps_per_input < 1:
            raise ValueError(f"steps_per_input is {steps_per_input}, expected at least 1")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        self.wiring = Wiring(num_inputs, num_outputs, num_hidden, num_evals)
        self.steps_per_input = steps_per_input
        self.dynamics = Dynamics(self.wiring, bump, delta_scale=delta_scale, output_activation=output_activation)
        self.weight = nn.Parameter(initial_weights(self.wiring, init_scale, generator))
        self.to(device=torch.get_default_device() if device is None else device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        target: Tensor | None = None,
        *,
        present: Tensor | None = None,
        wipe: Tensor | None = None,
        state: State | None = None,
    ) -> Result:
        """Run over n_s inputs, each shown for n_r = ``steps_per_input`` time steps.

        Args:
            x: [B, n_s, n_x].
            target: [B, n_s, n_o], compared in each block's last step; None: no targets.
            present: bool [B, n_s, n_o]: which targets exist; None: all that are given.
            wipe: bool [B, n_s]: reset activations, not weights, before this input; None: never.
            state: the last call's; None begins at time 1 with ``weight``.

        Raises:
            ValueError: a wrong shape, dtype or device, naming the expected one.
        """
        sequences = self.sequences(x, target, present, wipe)
        rollout = self.dynamics(self.weight.expand(len(x), -1, -1), sequences, state)
        return Result(rollout.output[:, self.steps_per_input - 1 :: self.steps_per_input], rollout.loss, rollout.state)

    def loss(
        self,
        x: Tensor,
        target: Tensor,
        *,
        present: Tensor | None = None,
        wipe: Tensor | None = None,
        gradient: str = "auto",
    ) -> Tensor:
        """E_total [B] of whole sequences, with the method ``gradient`` for its gradient in ``weight``.

        Arguments as in ``forward``; ``gradient`` as in :func:`srwm_agents.introspective.gradients.sequence_loss`.
        """
        sequences = self.sequences(x, target, present, wipe)
        return sequence_loss(self.dynamics, self.weight.expand(len(x), -1, -1), sequences, gradient)[0]

    def sequences(
        self, x: Tensor, target: Tensor | None = None, present: Tensor | None = None, wipe: Tensor | None = None
    ) -> Sequences:
        """Check the arguments of ``forward`` and repeat each input for n_r time steps."""
        if x.dim() != 3 or x.shape[-1] != self.wiring.num_inputs:
            raise ValueError(f"x has shape {list(x.shape)}, expected [B, n_s, {self.wiring.num_inputs}]")
        batch, inputs = x.shape[:2]
        shape = (batch, inputs, self.wiring.num_outputs)
        if target is None:
            if present is not None:
                raise ValueError("present is given without target")
            target, present = x.new_zeros(shape), x.new_zeros(shape, dtype=torch.bool)
        present = torch.ones_like(target, dtype=torch.bool) if present is None else present
        wipe = torch.zeros(batch, inputs, dtype=torch.bool, device=x.device) if wipe is None else wipe
        check_alike("x", x, "weight", self.weight)
        check_alike("target", target, "weight", self.weight)
        check_shape("target", target, shape, "[B, n_s, n_o]")
        check_shape("present", present, shape, "[B, n_s, n_o]")
        check_shape("wipe", wipe, (batch, inputs), "[B, n_s]")
        for name, mask in (("present", present), ("wipe", wipe)):
            if mask.dtype != torch.bool:
                raise ValueError(f"{name} is {mask.dtype}, expected torch.bool")
        return Sequences(x, target, present, wipe).blocks(self.steps_per_input)


def initial_weights(wiring: Wiring, scale: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw W(1), float64 [K, Z], from N(0, scale² / Z), on the generator's device."""
    device = None if generator is None else generator.device
    shape = (wiring.num_units, wiring.num_sources)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64, device=device)
    return weight * (scale / wiring.num_sources**0.5)
