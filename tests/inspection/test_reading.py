"""What is shown is what the core computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from srwm_agents.cores import CORES, make_core
from srwm_agents.inspection.layout import layers_of
from srwm_agents.inspection.reader import Reader
from srwm_agents.layers import DeltaLayer, SRWMLayer
from srwm_agents.ops.srwm import SRWMState, SRWMWeights, read_step, srwm, zero_state

SIZES: dict[str, Any] = {"input_size": 5, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "ff_size": 8}
B = 3


def read(core: torch.nn.Module, steps: int = 4) -> tuple[list[Any], torch.Tensor, torch.Tensor]:
    """Readings of row 1 after some steps, the second of which resets it, and the states before and after the last."""
    generator = torch.Generator().manual_seed(0)
    reader = Reader(core, [1])  # type: ignore[arg-type]
    reader.attach()
    state = before = core.initial_state(B)  # type: ignore[operator]
    readings: list[Any] = []
    with torch.no_grad():
        for step in range(steps):
            before = state
            x = torch.randn(B, 1, 5, generator=generator, dtype=state.dtype)
            resets = torch.tensor([[False], [step == 1], [False]])
            _, state = core(x, state, resets)
            readings = reader.take()
    reader.detach()
    return readings, before, state


@pytest.mark.parametrize("name", [name for name in CORES if name not in ("lstm", "gru", "feedforward", "fake_sr")])
def test_matrices_are_those_of_the_flat_state(name: str) -> None:
    torch.manual_seed(0)
    core = make_core(name, **SIZES)
    ((reading),), _, after = read(core)
    own = core.layer_states(after)
    assert len(own) == 2
    assert reading.state_size == pytest.approx(float(after[1].norm()), rel=1e-5)
    assert len(reading.layers) == (0 if name in ("min_gru", "ffm") else 2)
    for layer, shown, parts in zip(layers_of(core), reading.layers, own, strict=bool(reading.layers)):
        start = 0
        for i, block in enumerate(layer.blocks):
            part = parts[block.name][1]
            np.testing.assert_array_equal(shown.matrix[..., start : start + block.columns], part.numpy())
            unit = torch.tensor(block.slow or [1.0] * layer.heads)
            torch.testing.assert_close(torch.from_numpy(shown.sizes[:, i]), part.flatten(1).norm(dim=1) / unit)
            start += block.columns
        assert start == shown.matrix.shape[-1]


@pytest.mark.parametrize("name", ["lstm", "gru", "feedforward", "fake_sr"])
def test_cores_without_matrices_have_none(name: str) -> None:
    core = make_core(name, **SIZES)
    ((reading),), _, after = read(core)
    assert layers_of(core) == []
    assert reading.layers == ()
    assert reading.state_size == pytest.approx(float(after[1].norm()), rel=1e-5)


def test_an_lstms_parts_are_named() -> None:
    core = make_core("lstm", **SIZES)
    state = torch.arange(float(core.state_size))[None]
    parts = core.layer_states(state)
    assert [list(part) for part in parts] == [["h", "c"]] * 2
    torch.testing.assert_close(parts[1]["c"][0], state[0, 24:32])


@pytest.mark.parametrize(
    "settings", [{}, {"unit_keys": True, "state_decay": 0.9}, {"input_softmax": False, "input_norm": True}]
)
def test_an_srwms_rates_and_keys_rewrite_the_matrix_as_the_op_did(settings: dict[str, Any]) -> None:
    """The next state, from the queries, keys and rates that are shown, is the op's."""
    torch.manual_seed(0)
    layer = SRWMLayer(8, 2, **settings).double()
    h = torch.randn(B, 1, 8, dtype=torch.float64)
    state = tuple(0.3 * torch.randn(B, *shape, dtype=torch.float64) for shape in layer.state_shapes)
    resets = torch.tensor([[False], [True], [False]])
    chosen = layer.choices(h, state, resets)
    _, after = layer(h, state, resets)
    for i, (shift, slow) in enumerate(zip(state, layer.weights, strict=True)):
        begin = shift.masked_fill(resets[..., None, None], 0)
        w = slow + begin
        q, k, b = chosen["q"], chosen["k"], chosen["b"][..., i]
        read = torch.einsum("bhd,bhdc->bhc", q - k, w)
        expected = layer.state_decay * begin + torch.einsum("bh,bhd,bhc->bhdc", b, k, read)
        torch.testing.assert_close(after[i], expected, rtol=1e-9, atol=1e-12)


def test_a_steps_reading_is_the_ops_output() -> None:
    torch.manual_seed(0)
    weights = SRWMWeights(*(torch.randn(2, 4, n, dtype=torch.float64) for n in (3, 4, 4, 4)))
    state = SRWMState(*(0.2 * torch.randn_like(block) for block in zero_state(weights, B)))
    x = torch.randn(B, 2, 4, dtype=torch.float64)
    y, q, k, beta = read_step(x, weights, state, unit_keys=True)
    torch.testing.assert_close(y, srwm(x[:, None], weights, state, unit_keys=True, backend="naive")[0][:, 0])
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(B, 2, dtype=torch.float64))
    torch.testing.assert_close(k, normalize(k, dim=-1))
    assert beta.shape == (B, 2, 4)


def test_a_delta_nets_rate_and_key_write_what_the_op_did() -> None:
    torch.manual_seed(0)
    layer = DeltaLayer(8, 2).double()
    h = torch.randn(B, 1, 8, dtype=torch.float64)
    state = (torch.randn(B, 2, 4, 4, dtype=torch.float64),)
    chosen = layer.choices(h, state)
    value = layer.slow(h).unflatten(-1, (2, -1))[:, 0, :, 8:12]
    wrong = value - torch.einsum("bhd,bhdc->bhc", chosen["k"], state[0])
    expected = state[0] + torch.einsum("bhd,bhc->bhdc", chosen["k"] * chosen["b"], wrong)
    torch.testing.assert_close(layer(h, state)[1][0], expected)


def test_sr_deltas_fifth_rate_is_the_fast_matrixs() -> None:
    torch.manual_seed(0)
    core = make_core("sr_delta", **SIZES)
    (first, _) = layers_of(core)
    assert first.rates == ("y", "q", "k", "b", "W")
    assert [bool(block.slow) for block in first.blocks] == [True, True, True, True, False]
    ((reading),), _, _ = read(core)
    assert ((reading.layers[0].rates > 0) & (reading.layers[0].rates < 1)).all()


def test_reading_changes_nothing() -> None:
    torch.manual_seed(0)
    core = make_core("srwm", **SIZES)
    x, state = torch.randn(B, 1, 5), torch.randn(B, core.state_size)
    with torch.no_grad():
        plain = core(x, state)
        reader = Reader(core, [0, 2])
        reader.attach()
        heard = core(x, state)
        core(x.expand(-1, 6, -1), state)  # as a learner calls it: not read
        assert reader.states is not None
        torch.testing.assert_close(reader.states[1], heard[1][[0, 2]], rtol=0, atol=0)
        reader.detach()
        reader.states = None
        core(x, state)
    assert reader.states is None
    torch.testing.assert_close(plain, heard, rtol=0, atol=0)
