"""The forward gradient equals back-propagation through time and central differences, in float64."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from srwm_agents.introspective import (
    Bump,
    Compact,
    Dynamics,
    Gaussian,
    Sequences,
    Wiring,
    cheaper_gradient,
    forward_gradient,
    sequence_loss,
)
from srwm_agents.introspective.gradients import BPTT_TENSORS, GRADIENTS, bptt_bytes, forward_bytes

CONFIGURATIONS = 240
GROUPS = 12


class Case(NamedTuple):
    """One random net with one random batch."""

    dynamics: Dynamics
    weight: Tensor
    sequences: Sequences
    aimed: Tensor
    """Connections that mod is made to address, one a sequence (empty: none)."""


def random_case(seed: int) -> Case:
    """Random sizes, g, weights, inputs, targets and wipes; every second case writes to connections of the pointers."""
    g = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=g))

    outputs = pick(1, 2)
    wiring = Wiring(pick(1, 3), outputs, pick(0, 3), num_evals=pick(0, outputs))
    bumps: list[Bump] = [Gaussian(0.5), Gaussian(1.0), Compact(0.5), Compact(2.0)]
    dynamics = Dynamics(
        wiring,
        bumps[seed % 4],
        delta_scale=float(0.2 + torch.rand((), generator=g)),
        output_activation=("logistic", "tanh")[pick(0, 1)],
    )
    batch, steps = pick(1, 2), pick(3, 7)
    scale = float(0.3 + 2 * torch.rand((), generator=g))
    weight = torch.randn(batch, wiring.num_units, wiring.num_sources, generator=g, dtype=torch.float64)
    weight = weight * scale / wiring.num_sources**0.5
    x = torch.randn(batch, steps, wiring.num_inputs, generator=g, dtype=torch.float64)
    x[:, :, 0] = 1
    aimed = torch.zeros(0, dtype=torch.long)
    if seed // 4 % 2:
        # Connections into ana, mod or Δ; x0 = 1 sets mod to their address. Weights of ±4 bring each bit within 0.02.
        units = torch.randint(wiring.ana.start, wiring.num_units, (batch,), generator=g)
        aimed = units * wiring.num_sources + torch.randint(wiring.num_sources, (batch,), generator=g)
        weight[:, wiring.mod] *= 0.2
        weight[:, wiring.mod, 0] = 8 * wiring.addresses()[aimed] - 4
    target = torch.rand(batch, steps, outputs, generator=g, dtype=torch.float64)
    present = torch.rand(batch, steps, outputs, generator=g) < 0.8
    present[:, -1] = True
    wipe = torch.rand(batch, steps, generator=g) < 0.1
    wipe[:, -1] = False  # a last output that depends on something
    return Case(dynamics, weight, Sequences(x, target, present, wipe), aimed)


def gradient(case: Case, method: str) -> tuple[Tensor, Tensor]:
    """E_total summed over the batch, and its gradient in each sequence's weights."""
    weight = case.weight.clone().requires_grad_()
    loss = sequence_loss(case.dynamics, weight, case.sequences, method)[0].sum()
    return loss.detach(), torch.autograd.grad(loss, weight)[0]


def central_differences(case: Case, directions: Tensor) -> Tensor:
    """Derivatives of E_total along unit ``directions`` [N, B, K, Z], to fourth order in the step; [N]."""
    step = 3e-4
    shifts = torch.tensor([-2, -1, 1, 2], dtype=torch.float64) * step
    weights = case.weight + shifts[:, None, None, None, None] * directions
    many = weights.shape[0] * weights.shape[1]
    sequences = Sequences(*(part.repeat(many, *[1] * (part.dim() - 1)) for part in case.sequences))
    with torch.no_grad():
        loss = case.dynamics(weights.flatten(0, 2), sequences).loss
    values = loss.view(4, len(directions), -1).sum(2)
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


@pytest.mark.parametrize("group", range(GROUPS))
def test_three_gradients_agree(group: int) -> None:
    """Over 240 random configurations: 1e-9 between the two exact ones, 1e-6 to central differences."""
    for seed in range(group, CONFIGURATIONS, GROUPS):
        case = random_case(seed)
        loss, through_time = gradient(case, "bptt")
        forward_loss, forward = gradient(case, "forward")
        size = through_time.norm()
        assert size > 1e-6, seed
        torch.testing.assert_close(forward_loss, loss, rtol=1e-12, atol=0)
        assert (forward - through_time).norm() <= 1e-9 * size, seed

        # Along the gradient (its size), along random directions, and along one weight that addresses weights.
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(4, *forward.shape, generator=generator, dtype=torch.float64)
        directions[0] = forward
        directions[1] = 0
        directions[1, :, case.dynamics.wiring.mod.start, 0] = 1
        directions /= directions.flatten(1).norm(dim=1)[:, None, None, None]
        numeric = central_differences(case, directions)
        assert ((forward * directions).sum((1, 2, 3)) - numeric).abs().max() <= 1e-6 * size, seed


def test_every_single_weight_by_central_differences() -> None:
    case = random_case(5)
    n = case.dynamics.wiring.num_connections
    one = Case(case.dynamics, case.weight[:1], Sequences(*(part[:1] for part in case.sequences)), case.aimed)
    directions = torch.eye(n, dtype=torch.float64).view(n, *one.weight.shape)
    forward = gradient(one, "forward")[1]
    assert (forward.flatten() - central_differences(one, directions)).abs().max() <= 1e-6 * forward.norm()


@pytest.mark.parametrize("seed", [4, 5, 6, 7, 12, 13, 14, 15])
def test_the_cases_do_write_to_the_addressing_connections(seed: int) -> None:
    """The property test relies on this: aimed writes change their connections, and thereby later pointers."""
    case = random_case(seed)
    case.sequences.wipe[:] = False
    wiring, batch = case.dynamics.wiring, len(case.weight)
    assert ((case.aimed // wiring.num_sources) >= wiring.ana.start).all()
    state = case.dynamics.initial_state(case.weight)
    for t in range(3):
        state, step = case.dynamics.step(state, case.sequences.x[:, t])
        if t == 1:  # mod has seen x0 once
            assert (step.touch[:, 1].argmax(1) == case.aimed).all()
            assert (step.touch[torch.arange(batch), 1, case.aimed] > 0.5).all()
    changed = (state.weight - case.weight).flatten(1)
    assert (changed[torch.arange(batch), case.aimed].abs() > 1e-3).all()


def test_a_narrow_compact_bump_touches_one_weight_at_most() -> None:
    for seed in range(2, CONFIGURATIONS, 4):
        case = random_case(seed)
        assert case.dynamics.bump == Compact(0.5)
        state = case.dynamics.initial_state(case.weight)
        for x in case.sequences.x.unbind(1):
            following, step = case.dynamics.step(state, x)
            assert ((step.touch > 0).sum(2) <= 1).all()
            assert ((following.weight != state.weight).flatten(1).sum(1) <= 1).all()
            state = following


def test_writes_and_reads_matter_for_the_gradient() -> None:
    """The terms of (10) and (13) are not negligible: without them in autograd's graph the gradient differs."""

    class Cut(Gaussian):
        def __call__(self, squared_distance: Tensor) -> Tensor:
            return super().__call__(squared_distance).detach()  # g' = 0

    shares = []
    for seed in range(0, CONFIGURATIONS, 4):  # those with Gaussian(0.5)
        case = random_case(seed)
        exact = gradient(case, "forward")[1]
        case.dynamics.bump = Cut(0.5)
        shares.append((gradient(case, "bptt")[1] - exact).norm() / exact.norm())
    assert (torch.stack(shares) > 1e-3).double().mean() > 0.5


def test_a_stream_cut_anywhere_has_the_same_gradient() -> None:
    case = random_case(7)
    whole = forward_gradient(case.dynamics, case.weight, case.sequences)
    loss, total = torch.zeros_like(whole.loss), torch.zeros_like(whole.gradient)
    state, sensitivity, outputs = None, None, []
    for t in range(case.sequences.x.shape[1]):
        now = Sequences(*(part[:, t : t + 1] for part in case.sequences))
        part = forward_gradient(case.dynamics, case.weight, now, state, sensitivity)
        loss, total = loss + part.loss, total + part.gradient
        state, sensitivity = part.state, part.sensitivity
        outputs.append(part.output)
    torch.testing.assert_close(loss, whole.loss)
    torch.testing.assert_close(total, whole.gradient)
    torch.testing.assert_close(torch.cat(outputs, 1), whole.output)


def test_storage_does_not_grow_with_the_sequence() -> None:
    case = random_case(0)
    for steps in (1, 3):
        sequences = Sequences(*(part[:, :steps] for part in case.sequences))
        p, q = forward_gradient(case.dynamics, case.weight, sequences).sensitivity
        n, wiring = case.dynamics.wiring.num_connections, case.dynamics.wiring
        assert q.shape == (len(case.weight), n, n)
        assert p.shape == (len(case.weight), wiring.evals + 1 + wiring.num_units, n)
    with pytest.raises(ValueError, match="state and sensitivity go together"):
        forward_gradient(case.dynamics, case.weight, case.sequences, case.dynamics.initial_state(case.weight))


@pytest.mark.parametrize("bump", [Gaussian(0.4), Gaussian(2.0), Compact(0.5), Compact(1.7)])
def test_slopes_are_the_bumps_derivatives(bump: Bump) -> None:
    s = torch.linspace(0, 6, 601, dtype=torch.float64, requires_grad=True)
    values = bump(s)
    torch.testing.assert_close(bump.slope(s), torch.autograd.grad(values.sum(), s)[0])
    assert values[0] == 1
    assert ((values >= 0) & (values <= 1)).all()


def test_a_users_own_bump() -> None:
    class Cauchy:
        def __call__(self, squared_distance: Tensor) -> Tensor:
            return 1 / (1 + squared_distance)

        def slope(self, squared_distance: Tensor) -> Tensor:
            return -1 / (1 + squared_distance) ** 2

    case = random_case(3)
    case = case._replace(dynamics=Dynamics(case.dynamics.wiring, Cauchy()))
    torch.testing.assert_close(gradient(case, "forward")[1], gradient(case, "bptt")[1], rtol=1e-9, atol=1e-15)


def saved_bytes(case: Case) -> int:
    """What autograd keeps for the backward pass, each storage counted once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weight = case.weight.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = case.dynamics(weight, case.sequences).loss  # held, so that no storage's address is used twice
    assert loss.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_the_memory_rule_is_what_autograd_keeps(seed: int) -> None:
    case = random_case(seed)
    long = case._replace(sequences=Sequences(*(part.repeat_interleave(4, dim=1) for part in case.sequences)))
    grown = saved_bytes(long) - saved_bytes(case)
    batch, steps = case.sequences.x.shape[:2]
    rule = bptt_bytes(case.dynamics.wiring, 3 * steps, batch, 8)
    own = 0 if isinstance(case.dynamics.bump, Gaussian) else 2 / BPTT_TENSORS  # what Compact keeps for itself
    assert (1 + own) * rule < grown < (1.1 + own) * rule  # the rest are the units' few floats


def test_the_cheaper_gradient() -> None:
    wiring = Wiring(1, 1)
    assert cheaper_gradient(wiring, 10) == "bptt"
    assert cheaper_gradient(wiring, 10**9) == "forward"
    limit = bptt_bytes(wiring, 1000)
    assert limit > forward_bytes(wiring)
    assert cheaper_gradient(wiring, 1000, memory_limit=limit) == "bptt"
    assert cheaper_gradient(wiring, 1000, memory_limit=limit - 1) == "forward"
    short = 20
    assert bptt_bytes(wiring, short) < forward_bytes(wiring)
    assert cheaper_gradient(wiring, short, memory_limit=0) == "bptt"


def test_wrong_arguments_are_named() -> None:
    case = random_case(0)
    with pytest.raises(ValueError, match=f"unknown gradient 'rtrl', allowed: {', '.join(GRADIENTS)}"):
        sequence_loss(case.dynamics, case.weight, case.sequences, "rtrl")
    empty = Sequences(*(part[:, :0] for part in case.sequences))
    with pytest.raises(ValueError, match="no time step"):
        sequence_loss(case.dynamics, case.weight, empty)
