"""States and resets of every core: dtypes, fresh episodes, what an ended episode leaves behind."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.cores import CORES, make_core

SETTINGS = {"input_size": 7, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "ff_size": 32, "rollout_length": 4}
B = 3


def make(name: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    return make_core(name, **SETTINGS).to(dtype)


def inputs(core, steps: int, dtype: torch.dtype = torch.float32):
    """x, a state in the middle of an episode, and resets at the first step of one episode and the last of another."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(B, steps, 7, generator=g, dtype=torch.float64).to(dtype)
    state = (0.1 * torch.randn(B, core.state_size, generator=g)).abs().to(dtype)
    resets = torch.zeros(B, steps, dtype=torch.bool)
    if steps:
        resets[0, 0] = resets[1, -1] = True
    return x, state, resets


@pytest.mark.parametrize("steps", [0, 1, 9])
@pytest.mark.parametrize("name", CORES)
def test_no_state_is_a_fresh_episode(name: str, steps: int) -> None:
    core = make(name)
    x, _, resets = inputs(core, steps)
    for given in (None, resets):
        torch.testing.assert_close(core(x, None, given), core(x, core.initial_state(B), given), rtol=0, atol=0)
    out, final = core(x)
    assert out.shape == (B, steps, core.output_size)
    assert final.shape == (B, core.state_size)


@pytest.mark.parametrize("name", CORES)
def test_no_steps_change_nothing(name: str) -> None:
    core = make(name)
    x, state, resets = inputs(core, 0)
    # A shift is the difference of two sums with its slow weights, which round.
    torch.testing.assert_close(core(x, state, resets)[1], state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [0, 1, 9])
@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int32, torch.int64, torch.float16, torch.float32, torch.float64]
)
@pytest.mark.parametrize("name", CORES)
def test_resets_of_any_dtype(name: str, dtype: torch.dtype, steps: int) -> None:
    core = make(name)
    x, state, resets = inputs(core, steps)
    torch.testing.assert_close(core(x, state, resets.to(dtype)), core(x, state, resets), rtol=0, atol=0)


@pytest.mark.parametrize("name", CORES)
def test_wrong_states_and_resets_are_named(name: str) -> None:
    core = make(name)
    x, state, resets = inputs(core, 2)
    for wrong, message in (
        (lambda: core(x, state, resets.to(torch.complex64)), "resets is torch.complex64, expected bool, integer or"),
        (lambda: core(x, state, resets[:, :1]), r"resets has shape \[3, 1\], expected \[3, 2\]"),
        (lambda: core(x, state.long(), resets), "state is torch.int64, expected a floating-point dtype"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            wrong()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("steps", [1, 9])
@pytest.mark.parametrize("name", CORES)
def test_a_reset_ends_what_is_not_finite(name: str, steps: int, broken: float) -> None:
    """In an episode that broke, nothing is left after its reset: neither in what follows nor in any gradient."""
    core = make(name)
    x, state, resets = inputs(core, steps)
    resets[:, 0] = True
    out, final = core(x, torch.full_like(state, broken), resets)
    expected = core(x, None, resets)
    torch.testing.assert_close((out, final), expected, rtol=0, atol=0)
    (out.sum() + final.sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in core.parameters())


@pytest.mark.parametrize("name", CORES)
def test_a_reset_in_the_middle_ends_what_is_not_finite(name: str) -> None:
    core = make(name)
    x, state, resets = inputs(core, 9)
    resets[:] = False
    resets[:, 2] = True
    out, final = core(x, torch.full_like(state, torch.nan), resets)
    fresh_out, fresh_final = core(x[:, 2:], None, None)
    torch.testing.assert_close(out[:, 2:], fresh_out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(final, fresh_final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CORES)
def test_modules_of_another_dtype(name: str, dtype: torch.dtype, steps: int) -> None:
    """The state is of the parameters' dtype, and the results are float32's within the dtype's precision."""
    reference, core = make(name), make(name, dtype)
    x, state, resets = inputs(reference, steps)
    fresh = core.initial_state(B)
    assert fresh.dtype == dtype
    out, final = core(x.to(dtype), fresh, resets)
    assert (out.dtype, final.dtype) == (dtype, dtype)
    expected, _ = reference(x, None, resets)
    # Of bfloat16's 8 bits, two layers and a residual stream of size 3 leave two decimal places.
    tolerance = 1e-4 if dtype == torch.float64 else 0.1
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)
    assert core(x.to(dtype), state.float(), resets)[1].dtype == torch.float32


@pytest.mark.parametrize("name", CORES)
def test_in_float64_acting_equals_the_whole_sequence(name: str) -> None:
    core = make(name, torch.float64)
    x, state, resets = inputs(core, 9, torch.float64)
    out, final = core(x, state, resets)
    outputs = []
    for t in range(9):
        y, state = core(x[:, t : t + 1], state, resets[:, t : t + 1])
        outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), out, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("input_norm", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 9])
@pytest.mark.parametrize("name", CORES)
def test_under_autocast_the_state_stays_float32(name: str, steps: int, input_norm: bool) -> None:
    torch.manual_seed(0)
    core = make_core(name, **SETTINGS, input_norm=input_norm)
    x, state, resets = inputs(core, steps)
    expected, _ = core(x, state, resets)
    for given in (x, x.bfloat16()):  # bfloat16: what an encoder under autocast hands on
        with torch.autocast("cpu", torch.bfloat16):
            out, final = core(given, state, resets)
            fresh = core(given)[1]
        assert final.dtype == fresh.dtype == torch.float32
        torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=0.1)  # 8 bits, as above


@pytest.mark.parametrize("length", [4, 300])
def test_no_carry_counts_exactly_in_any_dtype(length: int) -> None:
    """A count of the whole episode would stop at 256 in bfloat16."""
    settings = {**SETTINGS, "num_layers": 1, "rollout_length": length}
    core = make_core("srwm_no_carry", **settings).bfloat16()
    x = torch.zeros(1, 7, 7, dtype=torch.bfloat16)
    state, counts = torch.zeros(1, core.state_size), []
    with torch.no_grad():
        for _ in range(60):
            _, state = core(x, state)
            counts.append(int(state[0, -1]))
    assert counts == [7 * (i + 1) % length for i in range(60)]
