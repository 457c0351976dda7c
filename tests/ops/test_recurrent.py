"""The ops of LSTM and GRU: naive against PyTorch's cells, and kernels (interpreted where there is no GPU) against naive
in float64."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn import functional

from srwm_agents.ops import BackendUnavailableError, gru, lstm

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import kernel_helpers  # noqa: E402
from srwm_agents.ops.recurrent import autograd as kernels  # noqa: E402

DEVICE = "cuda" if CUDA else "cpu"
OPS: dict[str, Any] = {"lstm": lstm, "gru": gru}
GATES = {"lstm": 4, "gru": 3}
BACKENDS = ["naive", pytest.param("triton", marks=[pytest.mark.gpu] * CUDA)]

TOLERANCE = 2e-5
"""Allowed ||got - true|| / ||true|| of each output and gradient: a few roundings (6e-8 each) in every step; 1e-6 is
usual, and any wrong term is far above 1e-4. One product of TF32 in place of three would be off by 1e-3."""

SHAPES = [(2, 5, 5), (17, 3, 20), (1, 1, 16)]  # B, T, H
GPU_SHAPES = [(16, 128, 128), (64, 32, 128), (5, 33, 100), (3, 20, 32), (40, 9, 48), (2, 9, 64), (20, 12, 256),
              (33, 6, 200), (700, 7, 64), (3, 5, 1)]  # fmt: skip
KINDS = ["none", "first", "consecutive", "last", "many"]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=OPS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=BACKENDS[1:])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def interpreter_is_on() -> None:
    if not CUDA and not kernel_helpers.INTERPRETED:
        pytest.fail("Triton was imported before TRITON_INTERPRET=1 was set: set it in the environment")


def make_inputs(name: str, shape: tuple[int, int, int], seed: int = 0) -> list[Tensor]:
    """x, weight, bias and the states in float64 on the CPU."""
    batch, steps, hidden = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    rows = GATES[name] * hidden
    states = [normal(batch, hidden) for _ in range(2 if name == "lstm" else 1)]
    return [normal(batch, steps, rows), normal(rows, hidden) / hidden**0.5, normal(rows), *states]


def make_resets(kind: str, batch: int, steps: int) -> Tensor | None:
    resets = torch.zeros(batch, steps, dtype=torch.bool)
    if kind == "none":
        return None
    if kind == "first":
        resets[:, 0] = True
    elif kind == "consecutive":
        resets[0, steps // 2 : steps // 2 + 2] = True
    elif kind == "last":
        resets[-1, -1] = True
    elif kind == "many":
        resets = torch.rand(batch, steps, generator=torch.Generator().manual_seed(1)) < 0.4
    return resets.to(DEVICE)


def run(
    op: Any, inputs: Sequence[Tensor], resets: Tensor | None, *, backend: str, outputs: slice = slice(None)
) -> dict[str, Tensor]:
    """Outputs and gradients in float64, under random upstream gradients of ``outputs``: of float64 if naive."""
    dtype = torch.float64 if backend == "naive" else torch.float32
    leaves = [z.detach().to(DEVICE, dtype).requires_grad_() for z in inputs]
    got = op(*leaves, resets=resets, backend=backend)
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(z.shape, generator=generator, dtype=torch.float64).to(z) for z in got]
    grads = torch.autograd.grad(got[outputs], leaves, upstream[outputs], materialize_grads=True)
    names = ("y", "h", "c")[: len(got)] + ("dx", "dweight", "dbias", "dh", "dc")[: len(grads)]
    return {name: z.detach().double() for name, z in zip(names, (*got, *grads), strict=True)}


def assert_close(got: dict[str, Tensor], true: dict[str, Tensor]) -> None:
    assert got.keys() == true.keys()
    for name, value in true.items():
        error = (got[name] - value).norm() / value.norm().clamp_min(1e-30)
        assert error <= TOLERANCE, f"{name}: relative error {error:.1e}"  # NaN fails as well


def assert_matches_naive(name: str, inputs: Sequence[Tensor], resets: Tensor | None, backend: str, **given) -> None:
    true = run(OPS[name], inputs, resets, backend="naive", **given)
    assert_close(run(OPS[name], inputs, resets, backend=backend, **given), true)


@pytest.mark.parametrize("kind", ["none", "consecutive", "many"])
def test_the_naive_op_is_pytorchs_cell(name, kind) -> None:
    torch.manual_seed(0)
    cell: Any = (torch.nn.LSTMCell if name == "lstm" else torch.nn.GRUCell)(7, 5).double().to(DEVICE)
    x = torch.randn(3, 6, 7, dtype=torch.float64, device=DEVICE)
    state = [z.to(DEVICE) for z in make_inputs(name, (3, 6, 5))[3:]]
    resets = make_resets(kind, 3, 6)
    gates = functional.linear(x, cell.weight_ih, cell.bias_ih)
    y, *final = OPS[name](gates, cell.weight_hh, cell.bias_hh, *state, resets=resets, backend="naive")
    for t in range(6):
        if resets is not None:
            state = [z.masked_fill(resets[:, t, None], 0) for z in state]
        state = cell(x[:, t], tuple(state) if name == "lstm" else state[0])
        state = list(state) if name == "lstm" else [state]
        torch.testing.assert_close(y[:, t], state[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(final, state, rtol=1e-12, atol=1e-12)


def test_gradients_of_the_naive_op_once_and_twice(name) -> None:
    leaves = [z.requires_grad_() for z in make_inputs(name, (2, 3, 2))]
    resets = torch.tensor([[False, True, False], [True, False, False]])
    assert torch.autograd.gradcheck(lambda *z: OPS[name](*z, resets=resets, backend="naive"), leaves)
    assert torch.autograd.gradgradcheck(lambda *z: OPS[name](*z, resets=resets, backend="naive"), leaves)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        *((SHAPES[0], kind) for kind in KINDS),
        *((shape, "many") for shape in SHAPES[1:]),
        *((shape, "many") for shape in GPU_SHAPES * CUDA),
    ],
    ids=str,
)
def test_outputs_and_all_gradients_match_the_naive_op(name, backend, shape, kind) -> None:
    assert_matches_naive(name, make_inputs(name, shape), make_resets(kind, *shape[:2]), backend)


@pytest.mark.skipif(CUDA, reason="there are more shapes above on a GPU")
@pytest.mark.slow
@pytest.mark.parametrize("hidden", [1, 32, 48, 64, 100, 128, 256])
def test_many_widths(name, backend, hidden) -> None:
    assert_matches_naive(name, make_inputs(name, (18, 4, hidden)), make_resets("many", 18, 4), backend)


@pytest.mark.slow
@pytest.mark.parametrize("every", [None, 60])
def test_a_long_sequence_stays_accurate(name, backend, every) -> None:
    shape = (20, 1000, 64) if CUDA else (2, 150, 8)
    resets = torch.zeros(shape[:2], dtype=torch.bool, device=DEVICE)
    resets[:, slice(3, None, every) if every else []] = True
    assert_matches_naive(name, make_inputs(name, shape), resets, backend)


@pytest.mark.parametrize("outputs", [slice(0, 1), slice(1, 2), slice(-1, None)], ids=["y", "h", "last"])
def test_upstream_gradients_of_some_outputs_only(name, backend, outputs) -> None:
    inputs, resets = make_inputs(name, (2, 4, 5)), make_resets("consecutive", 2, 4)
    assert_matches_naive(name, inputs, resets, backend, outputs=outputs)


def test_two_chained_chunks_equal_one_sequence(name, backend) -> None:
    def chunked(x, weight, bias, *state, resets, backend):
        outputs = []
        for now in (slice(0, 3), slice(3, None)):
            y, *state = OPS[name](x[:, now], weight, bias, *state, resets=resets[:, now], backend=backend)
            outputs.append(y)
        return torch.cat(outputs, dim=1), *state

    inputs, resets = make_inputs(name, (2, 6, 5)), make_resets("consecutive", 2, 6)
    true = run(OPS[name], inputs, resets, backend="naive")
    assert_close(run(chunked, inputs, resets, backend=backend), true)


@pytest.mark.parametrize("backend", BACKENDS)
def test_step_by_step_equals_the_whole_sequence(name, backend) -> None:
    x, weight, bias, *state = (z.float().to(DEVICE) for z in make_inputs(name, (3, 6, 5)))
    resets = make_resets("many", 3, 6)
    assert resets is not None
    y, *final = OPS[name](x, weight, bias, *state, resets=resets, backend=backend)
    outputs = []
    for t in range(6):
        now = slice(t, t + 1)
        y_t, *state = OPS[name](x[:, now], weight, bias, *state, resets=resets[:, now], backend=backend)
        outputs.append(y_t)
    torch.testing.assert_close(torch.cat(outputs, dim=1), y, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reset_drops_a_state_that_is_not_finite(name, backend, dtype) -> None:
    """Nor does it leave anything in a gradient, the weights' among them."""
    inputs = make_inputs(name, (3, 3, 5))
    resets = torch.zeros(3, 3, dtype=torch.bool)
    resets[0, 0] = resets[2, 0] = resets[1, -1] = True
    true = run(OPS[name], inputs, resets.to(DEVICE), backend="naive")
    for part in inputs[3:]:
        part[0], part[2] = torch.nan, torch.inf
    resets = resets.to(DEVICE, dtype) * (1 if dtype == torch.bool else 3)
    assert_close(run(OPS[name], inputs, resets, backend=backend), true)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_an_ended_episode_leaves(name, backend, broken) -> None:
    """Nothing in later outputs and states and in gradients of later inputs, nor in other episodes."""
    inputs = make_inputs(name, (2, 4, 5))
    clean = run(OPS[name], inputs, make_resets("none", 2, 4), backend="naive")
    inputs[0][0, 1] = broken
    resets = torch.zeros(2, 4, dtype=torch.bool, device=DEVICE)
    resets[0, 2] = True
    got = run(OPS[name], inputs, resets, backend=backend)
    assert not got["y"][0, 1].isfinite().all() or broken == torch.inf  # whose gates are 0 and 1
    for key in ("y", "dx"):
        assert got[key][0, 2:].isfinite().all()
        torch.testing.assert_close(got[key][1], clean[key][1], rtol=1e-4, atol=1e-5)
    for key in ("h", "c")[: len(inputs) - 3]:
        assert got[key].isfinite().all()


def test_without_gradient_nothing_is_kept_and_the_given_state_is_not_touched(name, backend) -> None:
    inputs = [z.float().to(DEVICE) for z in make_inputs(name, (2, 3, 5))]
    before = [z.clone() for z in inputs]
    values = OPS[name](*inputs, backend=backend)
    values_grad = OPS[name](*(z.clone().requires_grad_() for z in inputs), backend=backend)
    assert not any(z.requires_grad for z in values)
    assert all(z.requires_grad for z in values_grad)
    for a, b in zip((*values, *inputs), (*values_grad, *before), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4)], ids=["no steps", "no episodes"])
def test_empty_sequences(name, backend, shape) -> None:
    inputs = [z.float().to(DEVICE) for z in make_inputs(name, shape)]
    y, *final = OPS[name](*inputs, backend=backend)
    assert y.shape == shape
    assert all(torch.equal(a, b) for a, b in zip(final, inputs[3:], strict=True))


def test_gradients_are_deterministic(name, backend) -> None:
    shape = (200, 20, 64) if CUDA else (3, 3, 5)
    inputs, resets = make_inputs(name, shape), make_resets("many", *shape[:2])
    first, second = (run(OPS[name], inputs, resets, backend=backend) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_inputs_that_are_not_contiguous(name, backend) -> None:
    def strided(x, weight, bias, *state, **given):
        state = [torch.stack([z, z], dim=-1)[..., 0] for z in state]
        return OPS[name](x.transpose(0, 1).contiguous().transpose(0, 1), weight.T.contiguous().T, bias, *state, **given)

    inputs, resets = make_inputs(name, (2, 3, 5)), make_resets("many", 3, 2)
    assert resets is not None
    true = run(OPS[name], inputs, resets.T.contiguous(), backend="naive")
    assert_close(run(strided, inputs, resets.T, backend=backend), true)


def test_compiles_without_graph_breaks(name, backend) -> None:
    torch.compiler.reset()
    compiled = torch.compile(OPS[name], fullgraph=True, backend="inductor" if CUDA else "aot_eager")
    inputs, resets = make_inputs(name, (2, 3, 5)), make_resets("many", 2, 3)
    true = run(OPS[name], inputs, resets, backend="naive")
    assert_close(run(compiled, inputs, resets, backend=backend), true)


def test_opcheck(name, backend) -> None:
    inputs: list[Tensor | None] = [z.float().to(DEVICE).requires_grad_() for z in make_inputs(name, (1, 2, 5))]
    inputs += [None] * (name == "gru")
    operator = {"lstm": kernels.lstm_forward_op, "gru": kernels.gru_forward_op}[name]
    torch.library.opcheck(operator, (*inputs, make_resets("first", 1, 2), True))


@pytest.mark.parametrize("weights", [False, True], ids=["episodes", "weights too"])
def test_vmap_and_functional_gradients(name, backend, weights) -> None:
    inputs = make_inputs(name, (2, 3, 5))
    x, *parameters = inputs[:3]
    state, resets = inputs[3:], make_resets("many", 2, 3)

    def loss(*tensors: Any, backend: str) -> Tensor:
        return torch.stack([z.sin().sum() for z in OPS[name](*tensors, resets=resets, backend=backend)]).sum()

    def at(scale, dtype):
        mapped = [x * scale, *(z * scale if weights else z for z in parameters), *(z * scale for z in state)]
        return [z.to(DEVICE, dtype) for z in mapped]

    numbers = tuple(range(len(inputs)))
    dims = (0, *[0 if weights else None] * 2, *[0] * len(state))
    entries = [at(scale, torch.float32) for scale in (1.0, -0.5)]
    mapped = [z[0] if dim is None else torch.stack(z) for z, dim in zip(zip(*entries, strict=True), dims, strict=True)]
    gradient: Any = grad(lambda *z: loss(*z, backend=backend), argnums=numbers)
    grads = vmap(gradient, in_dims=dims)(*mapped)
    for entry, scale in enumerate((1.0, -0.5)):
        leaves = [z.requires_grad_() for z in at(scale, torch.float64)]
        true = torch.autograd.grad(loss(*leaves, backend="naive"), leaves)
        for got, exact in zip(grads, true, strict=True):
            assert (got[entry].double() - exact).norm() <= TOLERANCE * exact.norm()


@pytest.mark.gpu
def test_a_captured_graph_computes_anew(name) -> None:
    """Forward and backward as one CUDA graph, replayed with other inputs and other resets."""
    inputs = [z.float().to("cuda").requires_grad_() for z in make_inputs(name, (20, 9, 32))]
    resets = torch.zeros(20, 9, dtype=torch.bool, device="cuda")

    def call() -> tuple[Tensor, ...]:
        outputs = OPS[name](*inputs, resets=resets, backend="triton")
        return *outputs, *torch.autograd.grad([z.sin().sum() for z in outputs], inputs)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    with torch.no_grad():
        for leaf, other in zip(inputs, make_inputs(name, (20, 9, 32), seed=1), strict=True):
            leaf.copy_(other)
    resets.copy_(torch.rand(20, 9, generator=torch.Generator().manual_seed(1)) < 0.4)
    graph.replay()
    for got, expected in zip(captured, call(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_what_the_kernels_do_not_take_is_computed_step_by_step(name) -> None:
    inputs, resets = make_inputs(name, (3, 4, 300)), make_resets("many", 3, 4)
    assert_matches_naive(name, inputs, resets, "auto")


def test_a_backend_that_cannot_run_says_why(name, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [z.to(DEVICE) for z in make_inputs(name, (1, 2, 4))]
    with pytest.raises(BackendUnavailableError, match="float64"):
        OPS[name](*inputs, backend="triton")
    with pytest.raises(BackendUnavailableError, match="H up to 256, not 257"):
        OPS[name](*(z.float().to(DEVICE) for z in make_inputs(name, (1, 2, 257))), backend="triton")
    monkeypatch.setattr(kernel_helpers, "INTERPRETED", False)
    with pytest.raises(BackendUnavailableError, match="CUDA tensors"):
        OPS[name](*(z.float().cpu() for z in inputs), backend="triton")


def test_wrong_arguments_are_named(name) -> None:
    gates = GATES[name]
    x, weight, bias, *state = make_inputs(name, (2, 3, 4))
    for wrong, message in (
        ((x, weight[1:], bias, *state), rf"weight has shape \[{4 * gates - 1}, 4\], expected \[{gates}H, H\]"),
        ((x[..., 1:], weight, bias, *state), rf"x has shape \[2, 3, {4 * gates - 1}\], expected \[B, T, {gates}H\]"),
        ((x, weight, bias[1:], *state), rf"bias has shape \[{4 * gates - 1}\]"),
        ((x, weight, bias, state[0][1:], *state[1:]), r"h has shape \[1, 4\], expected \[B, H\] = \[2, 4\]"),
        ((x, weight.float(), bias, *state), r"weight is torch.float32, but x is torch.float64"),
    ):
        with pytest.raises(ValueError, match=message):
            OPS[name](*wrong)
    with pytest.raises(ValueError, match=r"resets has shape \[2, 2\]"):
        OPS[name](x, weight, bias, *state, resets=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="backend is 'fast', allowed: auto, naive, triton"):
        OPS[name](x, weight, bias, *state, backend="fast")
