"""One time step of the introspective net, eqs. (1)-(4), and whole sequences of them.

Source: J. Schmidhuber, "A self-referential weight matrix", ICANN 1993. Everything is batched: B sequences, each with
weights of its own, since each rewrites its own. Names: B sequences, T time steps, K = num_units, Z = num_sources,
n = num_connections = K·Z.

Decisions where the paper leaves one, and deviations:

- f: every unit computes ``offset + amplitude · tanh(slope · net)``. Outputs, ana and mod are logistic (offset ½,
  amplitude ½, slope ½), hidden units tanh, and Δ is ``delta_scale · tanh``, signed as the paper requires. Hence
  y(1) = f(0) is ½ for logistic units, not 0. ``delta_scale = 0`` is the ablation without self-modification.
- Eq. (4) depends on whether d_k(t) *exists*; that is the bool tensor ``present``.
- ``wipe`` (not in the paper; off unless given) resets net, eval and val to their values at time 1 before a step and
  keeps the weights, so that only weights can store anything across a wipe. The paper's remark that a sequence 'may be
  the concatenation of many conventional training sequences' amounts to the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from srwm_agents.introspective.bumps import Bump, Gaussian
from srwm_agents.introspective.wiring import Wiring

ACTIVATIONS = {"logistic": (0.5, 0.5, 0.5), "tanh": (0.0, 1.0, 1.0)}
"""offset, amplitude and slope of ``offset + amplitude · tanh(slope · net)``."""


class State(NamedTuple):
    """The net's state between two time steps."""

    net: Tensor
    """[B, K]: net inputs of the non-input units."""
    eval: Tensor
    """[B, num_evals]: the last errors."""
    val: Tensor
    """[B, 1]: the weight that was read."""
    weight: Tensor
    """[B, K, Z]: the weights as they are now, W(t)."""


class Step(NamedTuple):
    """Intermediate values of one time step, for the gradient and for traces."""

    y: Tensor
    """[B, K]: activations of the non-input units."""
    z: Tensor
    """[B, Z]: activations of all sources."""
    distance: Tensor
    """[B, 2, n]: squared distances of ana (0) and mod (1) to each address."""
    touch: Tensor
    """[B, 2, n]: g of the distances, the weight with which each connection is read (0) and written (1)."""
    error: Tensor
    """[B, n_o]: d - o where a target is present, else 0."""


class Sequences(NamedTuple):
    """A batch of input sequences with targets."""

    x: Tensor
    """[B, T, n_x]."""
    target: Tensor
    """[B, T, n_o]: d; any finite value where not present."""
    present: Tensor
    """Bool [B, T, n_o]: d_k(t) exists."""
    wipe: Tensor
    """Bool [B, T]: whether activations, but not weights, are reset before the step."""

    def blocks(self, steps_per_input: int) -> Sequences:
        """Repeat each input for n_r = ``steps_per_input`` time steps: [B, n_s, …] -> [B, n_s·n_r, …].

        Targets are present in a block's last step, wipes come before its first.
        """
        last = torch.arange(steps_per_input, device=self.x.device) == steps_per_input - 1
        x, target, present, wipe = (part.repeat_interleave(steps_per_input, dim=1) for part in self)
        inputs = self.x.shape[1]
        return Sequences(x, target, present & last.repeat(inputs)[:, None], wipe & last.flip(0).repeat(inputs))


class Dynamics(nn.Module):
    """The net without its weights: activations, addressing, and the time step. Has buffers, no parameters."""

    def __init__(
        self,
        wiring: Wiring,
        bump: Bump | None = None,
        *,
        delta_scale: float = 1.0,
        output_activation: str = "logistic",
    ) -> None:
        """Make the dynamics, in float64; ``.to`` moves and casts them.

        Args:
            wiring: units and connections.
            bump: g; None for ``Gaussian()``.
            delta_scale: the largest weight change a step; 0 forces Δ to 0.
            output_activation: "logistic" | "tanh".

        Raises:
            ValueError: an unknown activation or a negative delta_scale.
        """
        super().__init__()
        if output_activation not in ACTIVATIONS:
            raise ValueError(f"output_activation is {output_activation!r}, allowed: {', '.join(ACTIVATIONS)}")
        if delta_scale < 0:
            raise ValueError(f"delta_scale is {delta_scale}, expected at least 0")
        self.wiring = wiring
        self.bump: Bump = Gaussian() if bump is None else bump
        self.delta_scale = delta_scale
        f = torch.tensor([ACTIVATIONS["logistic"]] * wiring.num_units, dtype=torch.float64)
        f[wiring.output] = torch.tensor(ACTIVATIONS[output_activation], dtype=torch.float64)
        f[wiring.hidden] = torch.tensor(ACTIVATIONS["tanh"], dtype=torch.float64)
        f[wiring.delta] = torch.tensor([0.0, delta_scale, 1.0], dtype=torch.float64)
        self.offset: Tensor
        self.amplitude: Tensor
        self.slope: Tensor
        self.address: Tensor
        self._opposite_and_same: Tensor
        for name, values in zip(("offset", "amplitude", "slope"), f.unbind(1), strict=True):
            self.register_buffer(name, values.clone(), persistent=False)
        address = wiring.addresses()
        self.register_buffer("address", address, persistent=False)
        self.register_buffer("_opposite_and_same", torch.cat([1 - address, address], dim=1).T.clone(), persistent=False)

    def initial_state(self, weight: Tensor) -> State:
        """The state at time 1: net, eval and val are 0; ``weight`` [B, K, Z] is W(1)."""
        wiring, batch = self.wiring, weight.shape[0]
        net, evals, val = (weight.new_zeros(batch, size) for size in (wiring.num_units, wiring.evals, 1))
        return State(net, evals, val, weight)

    def activation(self, net: Tensor) -> Tensor:
        """f(net), [..., K] -> [..., K]."""
        return self.offset + self.amplitude * torch.tanh(self.slope * net)

    def activation_slope(self, net: Tensor) -> Tensor:
        """f'(net), [..., K] -> [..., K]."""
        return self.amplitude * self.slope * (1 - torch.tanh(self.slope * net) ** 2)

    def step(
        self, state: State, x: Tensor, target: Tensor | None = None, present: Tensor | None = None
    ) -> tuple[State, Step]:
        """One time step, eqs. (1)-(4): from the state at time t to that at t + 1.

        Args:
            state: at time t.
            x: [B, n_x], the input at time t.
            target: [B, n_o]; None: no target.
            present: bool [B, n_o], which targets exist; None: all.
        """
        wiring, batch = self.wiring, x.shape[0]
        y = self.activation(state.net)  # (1)
        z = torch.cat([x, state.eval, state.val, y], dim=1)
        pointers = y[:, wiring.ana.start : wiring.mod.stop].view(batch, 2, wiring.num_bits)
        distance = self._squared_distance(pointers)
        touch = self.bump(distance)
        read, write = touch.view(batch, 2, wiring.num_units, wiring.num_sources).unbind(1)

        error = torch.zeros_like(y[:, wiring.output])
        if target is not None:
            error = target - y[:, wiring.output]
            error = error if present is None else torch.where(present, error, 0)
        following = State(
            net=(state.weight @ z[:, :, None]).squeeze(2),  # (1)
            eval=error[:, : wiring.evals],  # (4)
            val=(read * state.weight).sum((1, 2))[:, None],  # (2)
            weight=state.weight + y[:, wiring.delta, None] * write,  # (3)
        )
        return following, Step(y, z, distance, touch, error)

    def _squared_distance(self, pointers: Tensor) -> Tensor:
        """[B, 2, bits] -> [B, 2, n]: for a bit a, (p - a)² is p² (1 - a) + (1 - p)² a, so that no digits cancel."""
        return torch.cat([pointers**2, (1 - pointers) ** 2], dim=2) @ self._opposite_and_same

    def forward(self, weight: Tensor, sequences: Sequences, state: State | None = None) -> Rollout:
        """Run whole sequences, differentiably: autograd does back-propagation through time.

        Args:
            weight: [B, K, Z], W(1); unused if ``state`` is given.
            sequences: of T time steps (see ``Sequences.blocks``).
            state: to continue from; None begins at time 1.
        """
        state = self.initial_state(weight) if state is None else state
        loss = weight.new_zeros(weight.shape[0])
        outputs = [weight.new_zeros(weight.shape[0], 0, self.wiring.num_outputs)]
        for x, target, present, wipe in zip(*(part.unbind(1) for part in sequences), strict=True):
            state, step = self.step(wiped(state, wipe), x, target, present)
            loss = loss + 0.5 * step.error.square().sum(1)  # (4)
            outputs.append(step.y[:, None, self.wiring.output])
        return Rollout(loss, torch.cat(outputs, dim=1), state)


class Rollout(NamedTuple):
    """Loss, outputs and final state of a run over sequences."""

    loss: Tensor
    """[B]: E_total."""
    output: Tensor
    """[B, T, n_o]: o."""
    state: State
    """After the last step."""


def wiped(state: State, wipe: Tensor) -> State:
    """``state`` with net, eval and val zeroed where ``wipe``, bool [B]."""
    keep = ~wipe[:, None]
    return State(state.net * keep, state.eval * keep, state.val * keep, state.weight)
