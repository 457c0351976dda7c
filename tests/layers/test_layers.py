"""What every memory layer holds by itself: stepwise = whole, resets, fresh states, dtypes, autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from srwm_agents.layers import (
    DeltaLayer,
    FakeSRLayer,
    FFMLayer,
    GatedDeltaLayer,
    IntrospectiveLayer,
    MinGRULayer,
    MLSTMLayer,
    ResidualLayer,
    SHMLayer,
    SRDeltaLayer,
    SRWMLayer,
)

B, T, HIDDEN, HEADS = 3, 6, 16, 2

LAYERS: dict[str, Callable[[], ResidualLayer]] = {
    "srwm": lambda: SRWMLayer(HIDDEN, HEADS),
    "srwm, raw inputs": lambda: SRWMLayer(HIDDEN, HEADS, input_softmax=False, input_norm=True, unit_keys=True),
    "srwm, biased": lambda: SRWMLayer(HIDDEN, HEADS, input_softmax=False, beta_bias=-3.0),
    "srwm, decay": lambda: SRWMLayer(HIDDEN, HEADS, input_softmax=False, state_decay=0.9),
    "srwm, limit": lambda: SRWMLayer(HIDDEN, HEADS, input_softmax=False, state_limit=0.1),
    "srwm, detached": lambda: SRWMLayer(
        HIDDEN, HEADS, input_softmax=False, state_limit=0.1, detach_state_every_step=True
    ),
    "sr_delta": lambda: SRDeltaLayer(HIDDEN, HEADS, input_softmax=False),
    "sr_delta, limit": lambda: SRDeltaLayer(HIDDEN, HEADS, input_softmax=False, state_decay=0.95, state_limit=0.1),
    "delta": lambda: DeltaLayer(HIDDEN, HEADS, input_norm=True),
    "fake_sr": lambda: FakeSRLayer(HIDDEN, HEADS),
    "introspective": lambda: IntrospectiveLayer(HIDDEN, HEADS),
    "min_gru": lambda: MinGRULayer(HIDDEN),
    "gated_delta": lambda: GatedDeltaLayer(HIDDEN, HEADS, input_norm=True),
    "shm": lambda: SHMLayer(HIDDEN, HEADS),
    "ffm": lambda: FFMLayer(HIDDEN, trace_size=5, context_size=3),
    "mlstm": lambda: MLSTMLayer(HIDDEN, HEADS),
}


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> ResidualLayer:
    torch.manual_seed(0)
    return LAYERS[request.param]()


def inputs(
    layer: ResidualLayer, steps: int = T, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """h, and a state that is none of a fresh episode."""
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(B, steps, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = layer.state_shapes
    return h, tuple(0.2 * torch.randn(B, *shape, generator=generator).to(state_dtype) for shape in shapes)


def some_resets() -> Tensor:
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 0] = resets[1, 3] = resets[1, 4] = resets[2, -1] = True
    return resets


def test_step_by_step_equals_the_whole_sequence(layer: ResidualLayer) -> None:
    h, state = inputs(layer)
    resets = some_resets()
    out, final = layer(h, state, resets)
    outputs = []
    for t in range(T):
        out_t, state = layer(h[:, t : t + 1], state, resets[:, t : t + 1])
        outputs.append(out_t)
    torch.testing.assert_close(torch.cat(outputs, dim=1), out)
    torch.testing.assert_close(state, final)


def test_biased_rates_begin_alike_for_every_input() -> None:
    """Those of queries, keys and rates are sigmoid(-3) at first, those of outputs differ from step to step."""
    layer = SRWMLayer(HIDDEN, HEADS, input_norm=True, input_softmax=False, beta_bias=-3.0)
    with torch.no_grad():
        layer.w_beta[:, 1:, 1:] = 0  # what differs from input to input
    h, _ = inputs(layer, steps=1)
    rates = layer.choices(h, layer.initial_state(B))["b"]
    expected = torch.sigmoid(torch.tensor(-3.0)).expand(B, HEADS, 3)
    torch.testing.assert_close(rates[..., 1:], expected)
    assert rates[..., 0].std() > 0.05


def test_without_a_bias_all_inputs_are_the_hidden_vectors() -> None:
    layer = SRWMLayer(HIDDEN, HEADS, input_softmax=False)
    h, _ = inputs(layer)
    torch.testing.assert_close(layer._inputs(h).flatten(-2), h)


@pytest.mark.parametrize("name", ["srwm, limit", "srwm, detached", "sr_delta, limit"])
def test_these_states_meet_their_limit(name: str) -> None:
    """Or the test above would show nothing of limits."""
    torch.manual_seed(0)
    layer = LAYERS[name]()
    assert isinstance(layer, SRWMLayer)
    h, state = inputs(layer)
    _, final = layer(h, state, some_resets())
    sizes = [
        shift.norm(dim=(-2, -1)) / slow.norm(dim=(-2, -1)) for shift, slow in zip(final[:4], layer.weights, strict=True)
    ]
    at_the_limit = torch.stack(sizes) > 0.1 - 1e-6
    assert at_the_limit.any()
    assert not at_the_limit.all()
    assert torch.stack(sizes).max() < 0.1 + 1e-6


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("steps", [1, T])
def test_a_reset_drops_whatever_the_state_is(layer: ResidualLayer, steps: int, dtype: torch.dtype) -> None:
    h, state = inputs(layer, steps)
    resets = torch.zeros(B, steps, dtype=torch.bool)
    resets[0, 0] = resets[1, 0] = resets[2, -1] = True
    fresh = tuple(part.clone() for part in state)
    for part, broken in zip(fresh, state, strict=True):
        part[:2] = 0
        broken[0], broken[1] = torch.nan, torch.inf

    def run(state: tuple[Tensor, ...], resets: Tensor) -> list[Tensor]:
        """Outputs, final state, gradients in h, parameters and state."""
        leaf = h.clone().requires_grad_()
        state = tuple(part.clone().requires_grad_() for part in state)
        out, final = layer(leaf, state, resets)
        leaves = [leaf, *layer.parameters(), *state]
        loss = out.square().sum() + sum(part.square().sum() for part in final)
        return [out, *final, *torch.autograd.grad(loss, leaves, materialize_grads=True)]

    expected = run(fresh, resets)
    got = run(state, resets if dtype == torch.bool else resets.to(dtype) * 5)
    assert all(part.isfinite().all() for part in got)
    torch.testing.assert_close(got, expected)


def test_no_state_is_a_fresh_episode(layer: ResidualLayer) -> None:
    h, _ = inputs(layer)
    zeros = layer.initial_state(B)
    assert [tuple(part.shape) for part in zeros] == [(B, *shape) for shape in layer.state_shapes]
    expected, expected_final = layer(h, zeros, None)
    out, final = layer(h)
    assert torch.equal(out, expected)
    assert all(torch.equal(*parts) for parts in zip(final, expected_final, strict=True))


def test_no_steps_leave_the_state(layer: ResidualLayer) -> None:
    h, state = inputs(layer, steps=0)
    out, final = layer(h, state, torch.zeros(B, 0, dtype=torch.bool))
    assert out.shape == (B, 0, HIDDEN)
    torch.testing.assert_close(final, state, rtol=0, atol=1e-6)


def test_wrong_resets_are_named(layer: ResidualLayer) -> None:
    h, state = inputs(layer)
    with pytest.raises(ValueError, match=r"resets has shape \[3, 5\], expected \[B, T\] = \[3, 6\]"):
        layer(h, state, torch.zeros(B, T - 1, dtype=torch.bool))


def backward(layer: nn.Module, out: Tensor, final: tuple[Tensor, ...]) -> None:
    """Through outputs and final state; every gradient must be finite."""
    (out.square().sum() + sum(part.square().sum() for part in final)).backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("given", [True, False], ids=["state", "fresh"])
def test_modules_of_other_dtypes(layer: ResidualLayer, dtype: torch.dtype, given: bool) -> None:
    layer.to(dtype)
    h, state = inputs(layer, dtype=dtype)
    out, final = layer(h, state if given else None, some_resets())
    assert out.dtype == dtype
    assert all(part.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) for part in final)
    backward(layer, out, final)


def test_a_float64_module_is_computed_in_float64(layer: ResidualLayer) -> None:
    wide, narrow = layer(*inputs(layer))[0], layer.double()(*inputs(layer, dtype=torch.float64))[0]
    torch.testing.assert_close(wide, narrow.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [True, False], ids=["state", "fresh"])
@pytest.mark.parametrize("h_dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_states_stay_float32(layer: ResidualLayer, given: bool, h_dtype: torch.dtype) -> None:
    """What the layers before it hand on may be narrow or not."""
    h, state = inputs(layer)
    h = h.to(h_dtype)
    expected, expected_final = layer(h.float(), state if given else None, some_resets())
    with torch.autocast("cpu", torch.bfloat16):
        out, final = layer(h, state if given else None, some_resets())
    assert all(part.dtype == torch.float32 for part in final)
    # Linear maps are made of 8-bit mantissas, and what stands on them; the recurrence adds nothing to that.
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
    torch.testing.assert_close(final, expected_final, rtol=0.05, atol=0.05)
    backward(layer, out.float(), final)
