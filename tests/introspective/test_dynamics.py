"""The dynamics against equations (1)-(4) written out with loops; batches, blocks, cuts and wipes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from srwm_agents.introspective import Compact, Gaussian, IntrospectiveNet, Wiring, make_bump


def by_the_paper(wiring: Wiring, w: list[list[float]], x: Tensor, d: Tensor, present: Tensor, width: float, big: float):
    """E_total, outputs and final weights of one sequence, one number at a time, as (1)-(4) are printed."""
    units, sources, bits = wiring.num_units, wiring.num_sources, wiring.num_bits
    address = {
        (i, j): [int(digit) for digit in format(i * sources + j, f"0{bits}b")]
        for i in range(units)
        for j in range(sources)
    }

    def f(i: int, net: float) -> float:
        if i == units - 1:
            return big * math.tanh(net)  # Δ
        if wiring.num_outputs <= i < wiring.num_outputs + wiring.num_hidden:
            return math.tanh(net)
        return 1 / (1 + math.exp(-net))

    def g(pointer: list[float], adr: list[int]) -> float:
        return math.exp(-sum((a - b) ** 2 for a, b in zip(pointer, adr, strict=True)) / (2 * width**2))

    net, evals, val, total, outputs = [0.0] * units, [0.0] * wiring.evals, 0.0, 0.0, []
    first_ana = wiring.num_outputs + wiring.num_hidden
    for t in range(len(x)):
        y = [f(i, net[i]) for i in range(units)]
        z = [*x[t].tolist(), *evals, val, *y]
        ana, mod = y[first_ana : first_ana + bits], y[first_ana + bits : first_ana + 2 * bits]
        net = [sum(w[i][j] * z[j] for j in range(sources)) for i in range(units)]
        val = sum(g(ana, adr) * w[i][j] for (i, j), adr in address.items())
        w = [[w[i][j] + y[-1] * g(mod, address[i, j]) for j in range(sources)] for i in range(units)]
        errors = [float(d[t, k]) - y[k] if present[t, k] else 0.0 for k in range(wiring.num_outputs)]
        evals = errors[: wiring.evals]
        total += 0.5 * sum(error**2 for error in errors)
        outputs.append(y[: wiring.num_outputs])
    return total, outputs, w


@pytest.mark.parametrize(
    ("sizes", "steps_per_input"), [((2, 1, 0), 1), ((1, 2, 2), 3), ((3, 2, 1), 2)], ids=["small", "hidden", "evals"]
)
def test_the_net_follows_the_papers_equations(sizes, steps_per_input: int) -> None:
    g = torch.Generator().manual_seed(1)
    net = IntrospectiveNet(
        *sizes, steps_per_input=steps_per_input, bump=Gaussian(0.8), delta_scale=0.7, init_scale=3,
        generator=g, dtype=torch.float64,
    )  # fmt: skip
    x = torch.randn(2, 4, sizes[0], generator=g, dtype=torch.float64)
    d = torch.rand(2, 4, sizes[1], generator=g, dtype=torch.float64)
    present = torch.rand(2, 4, sizes[1], generator=g) < 0.7
    result = net(x, d, present=present)
    for b in range(2):
        # Blocks by hand: the same input n_r times, its target at the last.
        blocks = x[b].repeat_interleave(steps_per_input, 0)
        targets = d[b].repeat_interleave(steps_per_input, 0)
        due = torch.zeros(4 * steps_per_input, sizes[1], dtype=torch.bool)
        due[steps_per_input - 1 :: steps_per_input] = present[b]
        loss, outputs, weights = by_the_paper(net.wiring, net.weight.tolist(), blocks, targets, due, 0.8, 0.7)
        assert result.loss[b].item() == pytest.approx(loss, rel=1e-12)
        expected = torch.tensor(outputs, dtype=torch.float64)[steps_per_input - 1 :: steps_per_input]
        torch.testing.assert_close(result.output[b], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            result.state.weight[b], torch.tensor(weights, dtype=torch.float64), rtol=1e-11, atol=1e-12
        )


@pytest.mark.parametrize("sizes", [(1, 1, 0), (3, 2, 5), (16, 16, 0), (40, 3, 20)])
def test_the_wiring_counts_as_the_paper_does(sizes) -> None:
    wiring = Wiring(*sizes)
    n_i, n_y = sizes[0] + sizes[1] + 1, wiring.num_units
    assert wiring.num_connections == (n_i + n_y) * n_y
    assert wiring.num_bits == math.ceil(math.log2(wiring.num_connections))
    assert n_y == sizes[1] + sizes[2] + 2 * wiring.num_bits + 1
    addresses = wiring.addresses()
    assert len({tuple(row) for row in addresses.tolist()}) == wiring.num_connections
    numbers = addresses @ 2.0 ** torch.arange(wiring.num_bits - 1, -1, -1, dtype=torch.float64)
    assert numbers.tolist() == list(range(wiring.num_connections))
    assert len(wiring.unit_names()) == n_y
    assert len(wiring.source_names()) == wiring.num_sources
    assert wiring.connection_name(wiring.num_sources + 1) == f"{wiring.unit_names()[1]}<-{wiring.source_names()[1]}"


def make_net(**settings) -> IntrospectiveNet:
    g = torch.Generator().manual_seed(0)
    return IntrospectiveNet(
        2, 1, **{"init_scale": 2.0, "generator": g, "dtype": torch.float64, "bump": Gaussian(0.7), **settings}
    )


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    return torch.randn(3, 5, 2, generator=g, dtype=dtype), torch.rand(3, 5, 1, generator=g, dtype=dtype)


def test_a_sequence_can_be_cut_anywhere() -> None:
    net, (x, d) = make_net(), inputs()
    whole = net(x, d)
    for cut in range(6):
        first = net(x[:, :cut], d[:, :cut])
        second = net(x[:, cut:], d[:, cut:], state=first.state)
        torch.testing.assert_close(torch.cat([first.output, second.output], 1), whole.output, rtol=0, atol=0)
        torch.testing.assert_close(second.state, whole.state, rtol=0, atol=0)
        torch.testing.assert_close(first.loss + second.loss, whole.loss)


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    net, (x, d) = make_net(), inputs()
    whole = net(x, d)
    for b in range(3):
        alone = net(x[b : b + 1], d[b : b + 1])
        torch.testing.assert_close(alone.output[0], whole.output[b], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.state.weight[0], whole.state.weight[b], rtol=1e-12, atol=1e-12)


def test_blocks_are_inputs_shown_longer() -> None:
    slow, fast = make_net(steps_per_input=3), make_net(steps_per_input=1)
    x, _ = inputs()
    torch.testing.assert_close(slow(x).output, fast(x.repeat_interleave(3, 1)).output[:, 2::3], rtol=0, atol=0)


def test_an_output_depends_on_its_own_input_from_two_steps_on() -> None:
    x, _ = inputs()
    other = x.clone()
    other[:, -1] += 1
    for steps, same in ((1, True), (2, False)):
        net = make_net(steps_per_input=steps)
        assert torch.equal(net(x).output[:, -1], net(other).output[:, -1]) is same


def test_float32_is_near_float64() -> None:
    (x, d), net = inputs(), make_net()
    narrow = make_net(dtype=torch.float32)
    result = narrow(x.float(), d.float())
    assert result.output.dtype == torch.float32
    torch.testing.assert_close(result.output.double(), net(x, d).output, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_cuda_is_near_the_cpu() -> None:
    (x, d), net = inputs(), make_net()
    on_gpu = make_net(device="cuda")
    for gradient in ("bptt", "forward"):
        for device, module in (("cpu", net), ("cuda", on_gpu)):
            module.weight.grad = None
            module.loss(x.to(device), d.to(device), gradient=gradient).sum().backward()
        assert on_gpu.weight.grad is not None
        torch.testing.assert_close(on_gpu.weight.grad.cpu(), net.weight.grad, rtol=1e-9, atol=1e-12)


def test_eval_shows_the_error_one_step_later_and_only_where_a_target_is() -> None:
    net, (x, d) = make_net(steps_per_input=1), inputs()
    present = torch.tensor([[True], [False], [True]])
    state = net.dynamics.initial_state(net.weight.expand(3, -1, -1))
    state, step = net.dynamics.step(state, x[:, 0], d[:, 0], present)
    expected = torch.where(present, d[:, 0] - step.y[:, net.wiring.output], 0)
    torch.testing.assert_close(state.eval, expected)
    assert state.eval[1] == 0


def test_delta_forced_to_zero_leaves_the_weights_alone() -> None:
    x, d = inputs()
    still = make_net(delta_scale=0.0)(x, d).state.weight
    assert torch.equal(still[0], make_net().weight)
    moved = make_net(delta_scale=1.0)(x, d).state.weight
    assert (moved - make_net().weight).abs().max() > 1e-3


def test_a_wipe_keeps_the_weights_and_nothing_else() -> None:
    net, (x, _) = make_net(), inputs()
    wipe = torch.zeros(3, 5, dtype=torch.bool)
    wipe[:, 2] = True
    first = net(x[:, :2])
    fresh = net.dynamics.initial_state(first.state.weight)
    expected = net(x[:, 2:], state=fresh)
    result = net(x, wipe=wipe)
    assert torch.equal(result.output[:, 2:], expected.output)
    assert torch.equal(result.state.weight, expected.state.weight)
    unchanging = make_net(delta_scale=0.0)
    other = x.clone()
    other[:, :2] += 1  # nothing of this can pass the wipe without a weight
    assert torch.equal(unchanging(x, wipe=wipe).output[:, 2:], unchanging(other, wipe=wipe).output[:, 2:])


def test_reading_returns_the_weight_that_ana_points_at() -> None:
    net = make_net(bump=Compact(0.5), delta_scale=0.0)
    wiring, number = net.wiring, 123
    with torch.no_grad():
        net.weight[wiring.ana] = 0
        net.weight[wiring.ana, 0] = 40 * wiring.addresses()[number] - 20
    x = torch.ones(1, 2, 2, dtype=torch.float64)
    state = net(x[:, :1]).state
    assert state.val.item() == pytest.approx(net.weight.flatten()[number].item(), rel=1e-6)


def test_wrong_settings_and_inputs_are_named() -> None:
    for settings, message in (
        ({"num_inputs": 0}, "num_inputs is 0, expected at least 1"),
        ({"num_evals": 2}, "num_evals is 2, expected at most num_outputs = 1"),
        ({"steps_per_input": 0}, "steps_per_input is 0, expected at least 1"),
        ({"delta_scale": -1.0}, "delta_scale is -1.0, expected at least 0"),
        ({"output_activation": "relu"}, "output_activation is 'relu', allowed: logistic, tanh"),
    ):
        with pytest.raises(ValueError, match=message):
            IntrospectiveNet(**{"num_inputs": 2, "num_outputs": 1, **settings})
    with pytest.raises(ValueError, match="unknown bump 'box', allowed: gaussian, compact"):
        make_bump("box", 1.0)
    with pytest.raises(ValueError, match="width is 0, expected more than 0"):
        make_bump("compact", 0)
    net, (x, d) = make_net(), inputs()
    with pytest.raises(ValueError, match=r"x has shape \[3, 5, 1\], expected \[B, n_s, 2\]"):
        net(x[:, :, :1])
    with pytest.raises(ValueError, match=r"x is torch.float32, but weight is torch.float64: they must agree"):
        net(x.float())
    with pytest.raises(ValueError, match=r"target has shape \[3, 4, 1\], expected \[B, n_s, n_o\] = \[3, 5, 1\]"):
        net(x, d[:, :4])
    with pytest.raises(ValueError, match=r"wipe is torch.float64, expected torch.bool"):
        net(x, d, wipe=torch.zeros(3, 5, dtype=torch.float64))
    with pytest.raises(ValueError, match="present is given without target"):
        net(x, present=torch.ones(3, 5, 1, dtype=torch.bool))
