"""The exact gradient of E_total in the initial weights W(1), computed forward in time, eqs. (5)-(13).

Source: J. Schmidhuber, "A self-referential weight matrix", ICANN 1993, section 'Initial learning algorithm'. With

    p^u_ab(t) = ∂u(t) / ∂w_ab(1)        q^ij_ab(t) = ∂w_ij(t) / ∂w_ab(1)        (6)

carried from step to step, storage is O(n²) at any sequence length, and a step takes O(n² log n) operations, for
n = n_conn connections and log2 n address bits. Only the update of q needs n² log n, as one product of an n×(1 + bits)
by a (1 + bits)×n matrix; all else is n².

The printed equations, checked against autograd and central differences (tests/introspective/test_gradients.py), hold
with these readings:

- (11) lacks parentheses: the sum over l, and with it f', covers both terms,
  p^yk(t+1) = f'(net(t+1)) · Σ_l [ w_kl(t) p^l(t) + l(t) q^kl(t) ]; as printed, l(t) q^kl(t) would have a free index l.
- In (10) and (13), g' is the derivative of g in its own argument, the *squared* distance, so that the inner derivative
  2 (pointer - address) stands beside it; a bump given as a function of the distance would need another formula.
- (12)-(13) are consistent as printed: time indices are those of (3) differentiated. Order matters within a step: (10),
  (11) and (13) all read p, q, w and the activations of time t. Here q is therefore updated last, in place.
- (8) holds for all units because net(1) = val(1) = eval(1) = 0 are constants; y(1) = f(0) need not be 0.
- (7) starts from ∂E_total(1) = 0 because o(1) is a constant, although E(1) itself need not be 0.
- The abstract's O(n_conn log n_conn) a step is a slip: section 4's O(n_conn² log n_conn) is right, as q alone has
  n_conn² entries.

Deviations: the rows p^x = 0 are not stored; a ``wipe`` (see dynamics.py) sets p to zero, which is (8) again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.introspective.dynamics import Dynamics, Sequences, State, Step, wiped
from srwm_agents.introspective.wiring import Wiring

GRADIENTS = ("auto", "bptt", "forward")
BPTT_TENSORS = 3
"""Floats that autograd keeps for each step, connection and sequence: the weight and both bumps. Measured in the tests;
a bump may keep more (``Compact`` two)."""
MEMORY_LIMIT = 2**31
"""Largest memory in bytes for which "auto" uses back-propagation through time whatever the forward gradient takes."""


class Sensitivity(NamedTuple):
    """p and q of eq. (6), for B sequences; the columns are the n initial weights w_ab(1)."""

    p: Tensor
    """[B, num_evals + 1 + K, n]: rows eval, val, y."""
    q: Tensor
    """[B, n, n]: rows are the weights w_ij."""


class ForwardGradient(NamedTuple):
    """Loss, gradient, outputs and final state of a run with sensitivities."""

    loss: Tensor
    """[B]: E_total."""
    gradient: Tensor
    """[B, K, Z]: ∂E_total / ∂W(1), of each sequence."""
    output: Tensor
    """[B, T, n_o]."""
    state: State
    """After the last step; with ``sensitivity``, sufficient to continue."""
    sensitivity: Sensitivity
    """After the last step."""


def initial_sensitivity(wiring: Wiring, weight: Tensor) -> Sensitivity:
    """p and q at time 1, eqs. (8) and (12): zero and the identity; batch, dtype and device as ``weight`` [B, K, Z]."""
    batch, n = weight.shape[0], wiring.num_connections
    eye = torch.eye(n, dtype=weight.dtype, device=weight.device)
    return Sensitivity(weight.new_zeros(batch, wiring.evals + 1 + wiring.num_units, n), eye.repeat(batch, 1, 1))


@torch.no_grad()
def forward_gradient(
    dynamics: Dynamics,
    weight: Tensor,
    sequences: Sequences,
    state: State | None = None,
    sensitivity: Sensitivity | None = None,
) -> ForwardGradient:
    """Run the net and its sensitivities over T time steps.

    A stream may be cut anywhere: pass ``state`` and ``sensitivity`` to the next call, and add up loss and gradient.

    Args:
        dynamics: of the net.
        weight: [B, K, Z], W(1); unused if ``state`` is given.
        sequences: of T time steps (see ``Sequences.blocks``).
        state: to continue from; None begins at time 1.
        sensitivity: that of ``state``; its q is overwritten. None begins at time 1.

    Raises:
        ValueError: only one of ``state`` and ``sensitivity`` is given.
    """
    if (state is None) != (sensitivity is None):
        raise ValueError("state and sensitivity go together: give both, or neither to begin at time 1")
    state = dynamics.initial_state(weight) if state is None else state
    sensitivity = initial_sensitivity(dynamics.wiring, weight) if sensitivity is None else sensitivity
    loss = weight.new_zeros(weight.shape[0])
    gradient = weight.new_zeros(weight.shape[0], dynamics.wiring.num_connections)
    outputs = [weight.new_zeros(weight.shape[0], 0, dynamics.wiring.num_outputs)]
    first_output = dynamics.wiring.evals + 1
    for x, target, present, wipe in zip(*(part.unbind(1) for part in sequences), strict=True):
        before = wiped(state, wipe)
        p = sensitivity.p * ~wipe[:, None, None]
        state, step = dynamics.step(before, x, target, present)
        loss += 0.5 * step.error.square().sum(1)  # (4)
        p_output = p[:, first_output : first_output + dynamics.wiring.num_outputs]
        gradient -= (step.error[:, None, :] @ p_output).squeeze(1)  # (7); the error is 0 where there is no target
        sensitivity = _step(dynamics, Sensitivity(p, sensitivity.q), before, step, state, present)
        outputs.append(step.y[:, None, dynamics.wiring.output])
    return ForwardGradient(loss, gradient.view_as(weight), torch.cat(outputs, dim=1), state, sensitivity)


def _step(
    dynamics: Dynamics, now: Sensitivity, before: State, step: Step, after: State, present: Tensor
) -> Sensitivity:
    """p and q of time t + 1 from those of time t, eqs. (9)-(13)."""
    wiring, weight = dynamics.wiring, before.weight
    batch, units, sources = weight.shape
    p, q = now
    p_y = p[:, wiring.evals + 1 :]
    slope = dynamics.bump.slope(step.distance)  # g', [B, 2, n]

    # (11): f' · Σ_l [ w_kl p^l + l q^kl ]; the sources x have no p.
    through_activations = weight[:, :, wiring.num_inputs :] @ p
    through_weights = (step.z[:, None, None, :] @ q.view(batch, units, sources, -1)).squeeze(2)
    p_net = through_activations + through_weights
    following = torch.empty_like(p)
    following[:, wiring.evals + 1 :] = dynamics.activation_slope(after.net)[:, :, None] * p_net

    # (9): minus p of the outputs, where there is a target.
    seen = present[:, : wiring.evals, None]
    following[:, : wiring.evals] = -p_y[:, : wiring.evals] * seen

    # (10): Σ_ij q^ij g + Σ_m [ Σ_ij w_ij g' 2 (ana_m - adr_m) ] p^ana_m.
    ana, mod = step.y[:, None, wiring.ana], step.y[:, None, wiring.mod]
    towards = (weight.flatten(1) * slope[:, 0])[:, None, :] @ (2 * (ana - dynamics.address))  # [B, 1, bits]
    following[:, wiring.evals] = (step.touch[:, :1] @ q + towards @ p_y[:, wiring.ana]).squeeze(1)

    # (13): q += g p^Δ + Σ_m [ 2 Δ g' (mod_m - adr_m) ] p^mod_m, as one product of rank 1 + bits.
    delta = step.y[:, wiring.delta]
    left = torch.cat([step.touch[:, 1, :, None], 2 * (delta * slope[:, 1])[:, :, None] * (mod - dynamics.address)], 2)
    right = torch.cat([p_y[:, wiring.delta], p_y[:, wiring.mod]], dim=1)
    return Sensitivity(following, q.baddbmm_(left, right))


class _ForwardInTime(torch.autograd.Function):
    """The forward gradient as an autograd function: forward computes the gradient, backward scales it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dynamics: Dynamics, sequences: Sequences) -> tuple[Tensor, Tensor]:
        result = forward_gradient(dynamics, weight, sequences)
        ctx.save_for_backward(result.gradient)
        ctx.mark_non_differentiable(result.output)
        return result.loss, result.output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *upstream: Tensor
    ) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0][:, None, None] * gradient, None, None


def sequence_loss(
    dynamics: Dynamics, weight: Tensor, sequences: Sequences, gradient: str = "auto"
) -> tuple[Tensor, Tensor]:
    """E_total [B] and the outputs [B, T, n_o]; ``backward`` through E_total gives the exact gradient in ``weight``.

    Args:
        dynamics: of the net.
        weight: [B, K, Z], W(1); expand one net's weights to run it on many sequences.
        sequences: of T ≥ 1 time steps.
        gradient: "bptt": back-propagation through time by autograd; "forward": p and q, with outputs that do not
            require grad; "auto" chooses by :func:`cheaper_gradient`.

    Raises:
        ValueError: an unknown ``gradient``, or no time step.
    """
    batch, steps = sequences.x.shape[:2]
    if steps == 0:
        raise ValueError("the sequences have no time step")
    if gradient == "auto":
        gradient = cheaper_gradient(dynamics.wiring, steps, batch, weight.element_size())
    if gradient == "forward":
        return _ForwardInTime.apply(weight, dynamics, sequences)  # pyright: ignore[reportReturnType]
    if gradient != "bptt":
        raise ValueError(f"unknown gradient {gradient!r}, allowed: {', '.join(GRADIENTS)}")
    rollout = dynamics(weight, sequences)
    return rollout.loss, rollout.output


def forward_bytes(wiring: Wiring, batch: int = 1, element_size: int = 4) -> int:
    """Bytes of p (old and new) and q, for sequences of any length."""
    n = wiring.num_connections
    return batch * element_size * n * (n + 2 * (wiring.evals + 1 + wiring.num_units))


def bptt_bytes(wiring: Wiring, num_steps: int, batch: int = 1, element_size: int = 4) -> int:
    """Bytes that autograd keeps of ``num_steps`` time steps."""
    return batch * element_size * num_steps * BPTT_TENSORS * wiring.num_connections


def cheaper_gradient(
    wiring: Wiring, num_steps: int, batch: int = 1, element_size: int = 4, memory_limit: int = MEMORY_LIMIT
) -> str:
    """Choose the method for one gradient a sequence, "bptt" or "forward".

    A step of back-propagation through time costs O(n log n) operations, one of the forward gradient n times as many, at
    any sequence length. But the memory of back-propagation grows with the length, and exceeds the forward gradient's n²
    from about ``num_steps`` = n / BPTT_TENSORS on. So the choice is back-propagation where its memory fits into
    ``memory_limit`` bytes or is the smaller one, else the forward gradient. (A gradient after *every* step, as for
    online learning, is another case: see docs/introspective.md.)
    """
    needed = bptt_bytes(wiring, num_steps, batch, element_size)
    fits = needed <= memory_limit or needed <= forward_bytes(wiring, batch, element_size)
    return "bptt" if fits else "forward"
