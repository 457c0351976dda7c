"""The drop-in modules: a GRU's calls, against the core itself."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import srwm_agents
from srwm_agents import SRWM, SRWMCell
from srwm_agents.cores import CORES, make_core

T, B, IN, HIDDEN = 5, 3, 4, 16


def made(core: str = "srwm", num_layers: int = 1, **settings: Any) -> SRWM:
    torch.manual_seed(0)
    return SRWM(IN, HIDDEN, num_layers, core=core, dtype=torch.float64, **settings)


def data(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, B, IN] and resets [T, B], of which some are True."""
    torch.manual_seed(seed)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 1] = resets[4, 0] = resets[4, 1] = True
    return torch.randn(T, B, IN, dtype=torch.float64), resets


def test_shapes_are_a_grus() -> None:
    gru, memory = nn.GRU(IN, HIDDEN, dtype=torch.float64), made()
    cell = SRWMCell(IN, HIDDEN, dtype=torch.float64)
    x = data()[0]
    for inputs in (x, x[:, 0]):
        out, state = memory(inputs)
        expected, hidden = gru(inputs)
        assert out.shape == expected.shape
        assert state.shape == (*hidden.shape[:-1], memory.state_size)
    assert cell(x[0])[0].shape == nn.GRUCell(IN, HIDDEN, dtype=torch.float64)(x[0]).shape
    assert cell(x[0])[1].shape == (B, cell.state_size)
    assert cell(x[0, 0])[0].shape == (HIDDEN,)
    assert cell(x[0, 0])[1].shape == (cell.state_size,)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_the_core(core: str, num_layers: int) -> None:
    memory = made(core, num_layers)
    x, resets = data()
    state = torch.randn(1, B, memory.state_size, dtype=torch.float64).abs()
    if core == "srwm_no_carry":
        state[..., -1] = 3  # it counts steps
    out, final = memory(x, state, resets)
    expected, expected_final = memory.core(x.transpose(0, 1), state[0], resets.T)
    torch.testing.assert_close(out, expected.transpose(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(final[0], expected_final, rtol=0, atol=0)


@pytest.mark.parametrize("core", CORES)
def test_one_by_one_whole_batched_and_transposed_are_equal(core: str) -> None:
    memory = made(core, 2)
    x, resets = data()
    out, final = memory(x, resets=resets)

    # Batch first.
    first = copy.deepcopy(memory)
    first.batch_first = True
    again, last = first(x.transpose(0, 1), resets=resets.T)
    torch.testing.assert_close(again.transpose(0, 1), out)
    torch.testing.assert_close(last, final)

    # A sequence without a batch dimension.
    for row in range(B):
        again, last = memory(x[:, row], memory.initial_state(), resets[:, row])
        torch.testing.assert_close(again, out[:, row])
        torch.testing.assert_close(last, final[:, row])

    # A cell with the same weights, step by step; with a batch and without.
    cell = SRWMCell(IN, HIDDEN, num_layers=2, core=core, dtype=torch.float64)
    cell.load_state_dict(memory.state_dict())
    state, alone = cell.initial_state(B), None
    for t in range(T):
        step, state = cell(x[t], state, resets[t])
        torch.testing.assert_close(step, out[t])
        step, alone = cell(x[t, 1], alone, resets[t, 1])
        torch.testing.assert_close(step, out[t, 1])
    torch.testing.assert_close(state, final[0])
    torch.testing.assert_close(alone, final[0, 1])


def test_none_and_zeros_are_fresh_and_resets_of_numbers_work() -> None:
    memory = made()
    x, resets = data()
    out, final = memory(x, None, resets)
    for state, given in ((memory.initial_state(B), resets), (None, resets.long()), (None, resets.double())):
        again, last = memory(x, state, given)
        torch.testing.assert_close(again, out, rtol=0, atol=0)
        torch.testing.assert_close(last, final, rtol=0, atol=0)
    # A reset row is the same as a fresh one, whatever came before.
    fresh = memory(x[2:4, 1:2])[0]
    torch.testing.assert_close(out[2:4, 1:2], fresh)
    assert (memory(x)[0][2:, 1] - out[2:, 1]).abs().max() > 1e-6
    torch.testing.assert_close(memory(x)[0][:, 2], out[:, 2])  # never reset


def test_gradients_reach_everything() -> None:
    memory = made(num_layers=2)
    x, resets = data()
    x.requires_grad_()
    state = memory.initial_state(B).normal_().mul_(0.1).requires_grad_()
    out, final = memory(x, state, resets)
    ((out * torch.randn_like(out)).sum() + (final * torch.randn_like(final)).sum()).backward()
    assert state.grad is not None
    assert state.grad.abs().sum() > 0
    for name, parameter in [*memory.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_state_dict_without_pickles() -> None:
    memory = made()
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    other = SRWM(IN, HIDDEN, dtype=torch.float64)
    other.load_state_dict(torch.load(file, weights_only=True))
    x, resets = data()
    torch.testing.assert_close(other(x, resets=resets)[0], memory(x, resets=resets)[0], rtol=0, atol=0)


def test_device_and_dtype() -> None:
    assert {p.device.type for p in SRWM(IN, HIDDEN, device="meta").parameters()} == {"meta"}
    memory = SRWM(IN, HIDDEN)
    assert memory.initial_state(2).dtype == torch.float32
    assert memory.double().initial_state(2).dtype == torch.float64
    assert memory(data()[0])[1].dtype == torch.float64
    half = SRWMCell(IN, HIDDEN, dtype=torch.bfloat16)
    assert [tensor.dtype for tensor in half(torch.randn(B, IN, dtype=torch.bfloat16))] == [torch.bfloat16] * 2


def test_compiled_is_the_same() -> None:
    torch.compiler.reset()
    memory = made()
    x, resets = data()
    out, final = torch.compile(memory, fullgraph=True, backend="eager")(x, memory.initial_state(B), resets)
    expected, expected_final = memory(x, None, resets)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(final, expected_final)


def test_a_cell_is_exported_for_any_number_of_rows() -> None:
    cell = SRWMCell(IN, HIDDEN).eval()
    step = torch.randn(2, IN), cell.initial_state(2), torch.zeros(2, dtype=torch.bool)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in step)
    exported = torch.export.export(cell, step, dynamic_shapes=shapes).module()
    x, state, resets = torch.randn(3, IN), torch.randn(3, cell.state_size), torch.tensor([True, False, False])
    for again, expected in zip(exported(x, state, resets), cell(x, state, resets), strict=True):
        torch.testing.assert_close(again, expected)


def test_settings_and_repr() -> None:
    assert [SRWM(IN, size).core.config.num_heads for size in (64, 32, 24, 16, 12, 8)] == [8, 4, 2, 2, 1, 1]
    memory = SRWM(IN, 32, batch_first=True, state_decay=0.5, num_heads=1)
    assert "4, 32, num_layers=1, core='srwm', state_size=" in repr(memory)
    assert "num_heads=1" in repr(memory)
    assert "state_decay=0.5" in repr(memory)
    assert "batch_first=True" in repr(memory)
    core = make_core("lstm", input_size=IN, hidden_size=32, num_layers=1, input_norm=True)
    assert memory.core.config.ff_size == 128
    assert SRWM(IN, 32, core="lstm").state_dict().keys() == {f"core.{name}" for name in core.state_dict()}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: SRWM(IN, HIDDEN, core="rnn"), "unknown core 'rnn', allowed: srwm, "),
        (lambda m: SRWM(IN, HIDDEN, bidirectional=True), "unknown core setting 'bidirectional', allowed: "),
        (lambda m: SRWM(IN, 0), "hidden_size is 0, expected at least 1"),
        (lambda m: SRWMCell(0, 8), "input_size is 0, expected at least 1"),
        (lambda m: m(torch.zeros(5, 3, 7)), r"x has shape \[5, 3, 7\], expected \[T, B, 4\], or \[T, 4\]"),
        (lambda m: m(torch.zeros(4)), r"x has shape \[4\], expected"),
        (
            lambda m: m(torch.zeros(5, 3, 4), torch.zeros(1, 3, 16)),
            r"state has shape \[1, 3, 16\], expected \[1, 3, 448\]",
        ),
        (
            lambda m: m(torch.zeros(5, 3, 4), m.initial_state(2)),
            r"state has shape \[1, 2, 448\], expected \[1, 3, 448\]",
        ),
        (lambda m: m(torch.zeros(5, 4), m.initial_state(1)), r"state has shape \[1, 1, 448\], expected \[1, 448\];"),
        (lambda m: m(torch.zeros(5, 3, 4), None, torch.zeros(3, 5)), r"resets has shape \[3, 5\], expected \[5, 3\]"),
        (lambda m: SRWMCell(4, 8)(torch.zeros(1, 3, 4)), r"x has shape \[1, 3, 4\], expected \[B, 4\] or \[4\]"),
        (lambda m: SRWMCell(4, 8)(torch.zeros(3, 4), torch.zeros(3, 8)), r"state has shape \[3, 8\], expected \[3, 2"),
        (lambda m: SRWMCell(4, 8)(torch.zeros(3, 4), None, torch.zeros(1)), r"resets has shape \[1\], expected \[3\]"),
    ],
)
def test_errors_are_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call(SRWM(IN, HIDDEN))
    assert "\n" not in str(error.value)


def test_the_package_exports_both() -> None:
    assert {"SRWM", "SRWMCell"} <= set(srwm_agents.__all__)
