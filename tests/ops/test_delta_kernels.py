"""The delta rule's kernels against the naive op in float64: Triton's, on a GPU or else interpreted, and compiled C."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from srwm_agents.ops import BackendUnavailableError, delta_rule

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import kernel_helpers  # noqa: E402
from srwm_agents.ops.delta import autograd as kernels  # noqa: E402
from srwm_agents.ops.delta import cpu as compiled  # noqa: E402

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DEVICE = "cuda" if CUDA else "cpu"

# Allowed ||got - true|| / ||true|| of each output and gradient.
# float32: a few roundings (6e-8 each) in every step; 1e-6 is usual, and any wrong term is far above 1e-4.
# bfloat16: y and the inputs' gradients are rounded to 8 bits (at most 4e-3); the inputs are rounded for both alike.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-3}

SHAPES = [  # B, T, H, D, O
    (1, 7, 2, 12, 5),
    (2, 6, 1, 8, 8),
    (1, 4, 1, 5, 19),
    (1, 1, 1, 8, 8),
]
GPU_SHAPES = [(3, 50, 8, 16, 16), (2, 33, 3, 32, 32), (2, 20, 2, 64, 64), (2, 9, 2, 48, 100), (2, 9, 1, 128, 128),
              (700, 11, 8, 16, 16)]  # fmt: skip
NAMES = ("q", "k", "v", "beta", "state")


@pytest.fixture(params=[pytest.param("triton", marks=[pytest.mark.gpu] * CUDA), "cpu"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of kernels, and ``DEVICE`` where it runs."""
    if request.param == "cpu":
        monkeypatch.setitem(globals(), "DEVICE", "cpu")
    return request.param


@pytest.fixture(autouse=True)
def interpreter_is_on() -> None:
    if not CUDA and not kernel_helpers.INTERPRETED:
        pytest.fail("Triton was imported before TRITON_INTERPRET=1 was set: set it in the environment")


def make_inputs(shape: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """q, k, v, beta, state in float64 on the CPU; keys and queries normalised, as the layers do."""
    batch, steps, heads, dim, out = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    q, k = ((2 * normal(batch, steps, heads, dim)).softmax(-1) for _ in range(2))
    v, beta = normal(batch, steps, heads, out), normal(batch, steps, heads).sigmoid()
    return [q, k, v, beta, normal(batch, heads, dim, out)]


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
    inputs: list[Tensor], resets: Tensor | None, *, backend: str, dtype: torch.dtype, outputs: slice = slice(None),
    op=delta_rule,
) -> dict[str, Tensor]:  # fmt: skip
    """Outputs and gradients in float64, under random upstream gradients of ``outputs`` (of y and the final state)."""
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {
        name: z.detach().to(DEVICE, state_dtype if name == "state" else dtype).requires_grad_()
        for name, z in zip(NAMES, inputs, strict=False)
    }
    y, final = op(*leaves.values(), resets=resets, backend=backend)
    assert y.dtype == dtype
    assert final.dtype == state_dtype
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(z.shape, generator=generator).to(torch.bfloat16).to(z) for z in (y, final)]
    grads = torch.autograd.grad([y, final][outputs], list(leaves.values()), upstream[outputs], materialize_grads=True)
    results = {"y": y, "final": final, **{f"d {name}": grad for name, grad in zip(leaves, grads, strict=True)}}
    return {name: z.detach().double() for name, z in results.items()}


def assert_close(got: dict[str, Tensor], true: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == true.keys()
    for name, value in true.items():
        error = (got[name] - value).norm() / value.norm().clamp_min(1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"  # NaN fails as well


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "fresh"])
@pytest.mark.parametrize("kind", ["none", "first", "consecutive", "last", "many"])
@pytest.mark.parametrize("shape", SHAPES + GPU_SHAPES * CUDA, ids=str)
def test_outputs_and_all_gradients_match_the_naive_op(backend, shape, kind, with_state) -> None:
    inputs = make_inputs(shape)[: 5 if with_state else 4]
    resets = make_resets(kind, *shape[:2])
    true = run(inputs, resets, backend="naive", dtype=torch.float64)
    got = run(inputs, resets, backend=backend, dtype=torch.float32)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_bfloat16_inputs(backend) -> None:
    inputs = [z.bfloat16() for z in make_inputs((2, 6, 1, 12, 5))]  # what bfloat16 cannot hold is dropped for both
    resets = make_resets("many", 2, 6)
    true = run(inputs, resets, backend="naive", dtype=torch.float64)
    for name in (backend, "naive"):
        got = run(inputs, resets, backend=name, dtype=torch.bfloat16)
        assert_close(got, true, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("outputs", [slice(0, 1), slice(1, None)], ids=["y", "final"])
def test_upstream_gradients_of_some_outputs_only(backend, outputs) -> None:
    inputs, resets = make_inputs((2, 4, 1, 8, 6)), make_resets("consecutive", 2, 4)
    true = run(inputs, resets, backend="naive", dtype=torch.float64, outputs=outputs)
    got = run(inputs, resets, backend=backend, dtype=torch.float32, outputs=outputs)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("at", [[], [3, 5, 100]], ids=["no resets", "far between"])
def test_long_sequence_undone_step_by_step_stays_accurate(backend, at) -> None:
    """Undoing thousands of updates must not drift: errors add up, they do not grow. Segments longer than 64 steps."""
    shape = (2, 2000, 2, 16, 16) if CUDA else (1, 110, 1, 8, 8)
    inputs = make_inputs(shape)
    resets = torch.zeros(shape[:2], dtype=torch.bool, device=DEVICE)
    resets[:, at] = True
    true = run(inputs, resets if at else None, backend="naive", dtype=torch.float64)
    got = run(inputs, resets if at else None, backend=backend, dtype=torch.float32)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_two_chained_chunks_equal_one_sequence(backend) -> None:
    def chunked(q, k, v, beta, state, *, resets, backend):
        outputs = []
        for now in (slice(0, 3), slice(3, None)):
            y, state = delta_rule(
                q[:, now], k[:, now], v[:, now], beta[:, now], state, resets=resets[:, now], backend=backend
            )
            outputs.append(y)
        return torch.cat(outputs, dim=1), state

    inputs, resets = make_inputs((2, 7, 1, 8, 6)), make_resets("consecutive", 2, 7)
    true = run(inputs, resets, backend="naive", dtype=torch.float64)
    got = run(inputs, resets, backend=backend, dtype=torch.float32, op=chunked)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("backend", ["naive", "triton", "cpu"], indirect=True)
def test_step_by_step_equals_the_whole_sequence(backend: str) -> None:
    *inputs, state = (z.float().to(DEVICE) for z in make_inputs((3, 9, 2, 12, 5)))
    resets = make_resets("many", 3, 9)
    assert resets is not None
    q, k, v, beta = inputs
    y, final = delta_rule(q, k, v, beta, state, resets=resets, backend=backend)
    outputs = []
    for t in range(9):
        now = slice(t, t + 1)
        y_t, state = delta_rule(
            q[:, now], k[:, now], v[:, now], beta[:, now], state, resets=resets[:, now], backend=backend
        )
        outputs.append(y_t)
    torch.testing.assert_close(torch.cat(outputs, dim=1), y, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("backend", ["naive", "triton", "cpu"], indirect=True)
def test_a_reset_drops_a_state_that_is_not_finite(backend: str, steps: int, dtype: torch.dtype) -> None:
    inputs = make_inputs((3, steps, 2, 8, 6))
    resets = torch.zeros(3, steps, dtype=torch.bool)
    resets[0, 0] = resets[2, 0] = resets[1, -1] = True
    true = run(inputs, resets.to(DEVICE), backend="naive", dtype=torch.float64)
    inputs[-1][0], inputs[-1][2] = torch.nan, torch.inf
    resets = resets.to(DEVICE, dtype) * (1 if dtype == torch.bool else 3)
    got = run(inputs, resets, backend=backend, dtype=torch.float32)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_without_gradient_nothing_is_kept_and_the_given_state_is_not_touched(backend) -> None:
    inputs = [z.float().to(DEVICE) for z in make_inputs((2, 3, 1, 8, 8))]
    before = inputs[-1].clone()
    y, final = delta_rule(*inputs, backend=backend)
    y_grad, final_grad = delta_rule(*(z.clone().requires_grad_() for z in inputs), backend=backend)
    assert not y.requires_grad
    assert y_grad.requires_grad
    assert final_grad.requires_grad
    for a, b in ((y, y_grad), (final, final_grad), (inputs[-1], before)):
        assert torch.equal(a, b)


def test_no_steps(backend) -> None:
    inputs = [z.float().to(DEVICE) for z in make_inputs((2, 0, 1, 8, 6))]
    y, final = delta_rule(*inputs, backend=backend)
    assert y.shape == (2, 0, 1, 6)
    assert torch.equal(final, inputs[-1])


def test_gradients_are_deterministic(backend) -> None:
    shape = (64, 20, 8, 16, 16) if CUDA else (3, 4, 1, 8, 8)
    inputs, resets = make_inputs(shape), make_resets("many", *shape[:2])
    first, second = (run(inputs, resets, backend=backend, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "fresh"])
def test_compiles_without_graph_breaks(backend, with_state) -> None:
    torch.compiler.reset()
    compiled = torch.compile(delta_rule, fullgraph=True, backend="inductor" if CUDA else "aot_eager")
    inputs = make_inputs((2, 3, 1, 8, 6))[: 5 if with_state else 4]
    resets = make_resets("many", 2, 3) if with_state else None
    true = run(inputs, resets, backend="naive", dtype=torch.float64)
    got = run(inputs, resets, backend=backend, dtype=torch.float32, op=compiled)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "fresh"])
def test_opcheck(backend, with_state) -> None:
    *inputs, state = (z.float().to(DEVICE).requires_grad_() for z in make_inputs((1, 2, 1, 4, 6)))
    arguments = (*inputs, state if with_state else None, make_resets("first", 1, 2), True)
    torch.library.opcheck({"triton": kernels, "cpu": compiled}[backend].delta_forward_op, arguments)


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="float64"):
        delta_rule(*(z.to(DEVICE) for z in make_inputs((1, 2, 1, 8, 8))), backend="triton")
    with pytest.raises(BackendUnavailableError, match="O from 1 to 128, not 130"):
        delta_rule(*(z.float().to(DEVICE) for z in make_inputs((1, 2, 1, 8, 130))), backend="triton")
    monkeypatch.setattr(kernel_helpers, "INTERPRETED", False)
    with pytest.raises(BackendUnavailableError, match="CUDA tensors"):
        delta_rule(*(z.float() for z in make_inputs((1, 2, 1, 8, 8))), backend="triton")
