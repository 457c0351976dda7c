"""The SRWM's kernels against the naive op in float64: Triton's, on a GPU or else interpreted, and compiled C."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from srwm_agents.ops import BackendUnavailableError, SRWMState, SRWMWeights, srwm

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import kernel_helpers  # noqa: E402
from srwm_agents.ops.srwm import autograd as kernels  # noqa: E402
from srwm_agents.ops.srwm import cpu as compiled  # noqa: E402
from srwm_agents.ops.srwm.types import Rule  # noqa: E402

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DEVICE = "cuda" if CUDA else "cpu"

# Allowed ||got - true|| / ||true|| of each output and gradient.
# float32: a few roundings (6e-8 each) in every step; 1e-6 is usual, and any wrong term is far above 1e-4.
# bfloat16: y and dx are rounded to 8 bits (at most 4e-3); the inputs are rounded for both sides alike.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 6e-3}

SHAPES = [  # B, T, H, D, O
    (1, 7, 2, 12, 5),
    (2, 6, 1, 8, 8),
    (2, 5, 2, 16, 16),
    (1, 4, 1, 5, 19),
    (1, 1, 1, 8, 8),
]
GPU_SHAPES = [(3, 50, 8, 16, 16), (2, 33, 3, 32, 32), (2, 20, 2, 64, 64), (2, 9, 2, 48, 100), (2, 9, 1, 128, 128),
              (700, 11, 8, 16, 16)]  # fmt: skip


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


def make_inputs(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, SRWMWeights, SRWMState]:
    """x, weights, state in float64 on the CPU; gates and softmaxes far from uniform."""
    batch, steps, heads, dim, out = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64) * scale

    weights = SRWMWeights(*(normal(heads, dim, n, scale=2 * dim**-0.5) for n in (out, dim, dim, 4)))
    state = SRWMState(*(normal(batch, *block.shape, scale=0.3) for block in weights))
    return normal(batch, steps, heads, dim), weights, state


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
    x: Tensor,
    weights: SRWMWeights,
    state: SRWMState | None,
    resets: Tensor | None,
    *,
    backend: str,
    dtype: torch.dtype,
    weights_dtype: torch.dtype | None = None,
    outputs: slice = slice(None),
    decay: float = 1.0,
    unit_keys: bool = False,
    limit: float = 0.0,
    op=srwm,
) -> dict[str, Tensor]:
    """Outputs and gradients in float64, under random upstream gradients of ``outputs`` (of y and the final state)."""
    state_dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def leaf(z: Tensor, to: torch.dtype) -> Tensor:
        return z.detach().to(DEVICE, to).requires_grad_()

    x = leaf(x, dtype)
    weights = SRWMWeights(*(leaf(block, weights_dtype or dtype) for block in weights))
    if state is not None:
        state = SRWMState(*(leaf(block, state_dtype) for block in state))
    options = ({} if decay == 1 else {"decay": decay}) | ({"unit_keys": True} if unit_keys else {})
    options |= {"limit": limit} if limit else {}
    y, final = op(x, weights, state, resets=resets, backend=backend, **options)
    assert y.dtype == dtype
    assert all(block.dtype == state_dtype for block in final)
    generator = torch.Generator().manual_seed(2)
    results = {"y": y, **{f"final.{name}": block for name, block in final._asdict().items()}}
    upstream = [torch.randn(z.shape, generator=generator).to(torch.bfloat16).to(z) for z in results.values()]
    leaves = {"x": x, **{f"weights.{name}": block for name, block in weights._asdict().items()}}
    if state is not None:
        leaves |= {f"state.{name}": block for name, block in state._asdict().items()}
    grads = torch.autograd.grad(
        list(results.values())[outputs], list(leaves.values()), upstream[outputs], materialize_grads=True
    )
    results |= {f"d {name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: z.detach().double() for name, z in results.items()}


def assert_close(got: dict[str, Tensor], true: dict[str, Tensor], tolerance: float) -> None:
    assert got.keys() == true.keys()
    for name, value in true.items():
        error = (got[name] - value).norm() / value.norm().clamp_min(1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.1e}"  # NaN fails as well


@pytest.mark.parametrize(
    ("kind", "with_state"),
    [(kind, True) for kind in ("none", "first", "consecutive", "last", "many")] + [("none", False), ("many", False)],
)
@pytest.mark.parametrize("shape", SHAPES + GPU_SHAPES * CUDA, ids=str)
def test_outputs_and_all_gradients_match_the_naive_op(backend, shape, kind, with_state) -> None:
    x, weights, state = make_inputs(shape)
    arguments = (x, weights, state if with_state else None, make_resets(kind, *shape[:2]))
    true = run(*arguments, backend="naive", dtype=torch.float64)
    got = run(*arguments, backend=backend, dtype=torch.float32)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("decay", "with_state", "kind"),
    [(0.99, True, "none"), (0.99, True, "many"), (0.5, True, "many"), (0.5, False, "consecutive")],
)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]] + GPU_SHAPES * CUDA, ids=str)
def test_a_state_that_decays(backend, shape, kind, with_state, decay) -> None:
    """With .5, the longer sequences are undone in several launches."""
    x, weights, state = make_inputs(shape)
    arguments = (x, weights, state if with_state else None, make_resets(kind, *shape[:2]))
    true = run(*arguments, backend="naive", dtype=torch.float64, decay=decay)
    got = run(*arguments, backend=backend, dtype=torch.float32, decay=decay)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize(("decay", "kind"), [(1.0, "none"), (1.0, "many"), (0.95, "consecutive")])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2]] + GPU_SHAPES * CUDA, ids=str)
def test_keys_of_length_one(backend, shape, decay, kind) -> None:
    x, weights, state = make_inputs(shape)
    arguments = (x, weights, state, make_resets(kind, *shape[:2]))
    true = run(*arguments, backend="naive", dtype=torch.float64, decay=decay, unit_keys=True)
    got = run(*arguments, backend=backend, dtype=torch.float32, decay=decay, unit_keys=True)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize(
    ("limit", "decay", "unit_keys", "kind"),
    [(0.4, 1.0, False, "none"), (0.4, 1.0, False, "many"), (0.6, 0.95, True, "consecutive"), (0.2, 0.5, False, "many")],
)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[2], SHAPES[3]] + GPU_SHAPES * CUDA, ids=str)
def test_a_state_with_a_limit(backend, shape, kind, limit, decay, unit_keys) -> None:
    x, weights, state = make_inputs(shape)
    arguments = (x, weights, state, make_resets(kind, *shape[:2]))
    rule = {"decay": decay, "unit_keys": unit_keys, "limit": limit}
    true = run(*arguments, backend="naive", dtype=torch.float64, **rule)
    got = run(*arguments, backend=backend, dtype=torch.float32, **rule)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("rule", [{}, {"decay": 0.9, "unit_keys": True}, {"decay": 0.9, "limit": 0.4}], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 1, 6, 7), (1, 3, 1, 18, 20)], ids=str)
def test_the_y_block_may_have_a_launch_of_its_own(monkeypatch, shape, rule) -> None:
    """As wide heads have it, and without loads ahead."""
    launch = kernels.Launch(2, 2, 255, ahead=False)
    monkeypatch.setattr(kernels, "BACKWARD_OF_Y", {8: launch, 32: launch})
    for table in ("BACKWARD", "BACKWARD_WITH_DECAY"):
        monkeypatch.setattr(kernels, table, {32: launch})
    kernels._launch.cache_clear()
    x, weights, state = make_inputs(shape)
    arguments = (x, weights, state, make_resets("consecutive", *shape[:2]))
    try:
        assert len(kernels._launch(shape[3], shape[4], True, False, False, backward=True)) == 2
        got = run(*arguments, backend="triton", dtype=torch.float32, **rule)
    finally:
        kernels._launch.cache_clear()
    true = run(*arguments, backend="naive", dtype=torch.float64, **rule)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize(("limit", "some"), [(0.2, True), pytest.param(100.0, False, marks=pytest.mark.slow)])
def test_which_steps_meet_a_limit_is_saved(limit: float, some: bool) -> None:
    """The backward pass treats both kinds of steps differently: these inputs have both, or one."""
    x, weights, state = make_inputs((2, 6, 2, 8, 6))
    tensors = [block.float().to(DEVICE) for block in (x, *weights, *state)]
    *_, saved = kernels.srwm_forward_op(*tensors, make_resets("many", 2, 6), 0.7, False, limit, True)
    met = saved[..., -4:] < 1
    assert ((saved[..., -4:] > 0) & (saved[..., -4:] <= 1)).all()
    assert met.any() == some
    assert not met.any(dim=-1).all()
    true = run(x, weights, state, None, backend="naive", dtype=torch.float64, decay=0.7, limit=limit)
    got = run(x, weights, state, None, backend="triton", dtype=torch.float32, decay=0.7, limit=limit)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_a_limit_over_several_launches(backend, monkeypatch) -> None:
    if not CUDA:  # fewer, where they are interpreted
        monkeypatch.setattr(kernels, "LIMITED_STEPS", 8)
    steps = kernels.LIMITED_STEPS + 6
    x, weights, state = make_inputs((1, steps, 1, 8, 6))
    assert kernels.steps_at_once(Rule(limit=0.3)) == kernels.LIMITED_STEPS
    resets = torch.zeros(1, steps, dtype=torch.bool, device=DEVICE)
    resets[0, 3] = True
    x = x.softmax(-1)  # as the RL layer does; keeps the dynamics from amplifying the forward pass's own roundings
    true = run(x, weights, state, resets, backend="naive", dtype=torch.float64, limit=0.3)
    got = run(x, weights, state, resets, backend=backend, dtype=torch.float32, limit=0.3)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_a_limit_that_is_not_met_changes_no_output(backend) -> None:
    x, weights, state = make_inputs((1, 5, 2, 12, 5))
    arguments = (x, weights, state, make_resets("consecutive", 1, 5))
    for decay in (1.0, 0.9):
        free, limited = (
            run(*arguments, backend=backend, dtype=torch.float32, decay=decay, limit=limit) for limit in (0.0, 100.0)
        )
        for name in free:
            if name.startswith("d "):  # the gradient of a step is added up in another order
                torch.testing.assert_close(limited[name], free[name], rtol=1e-4, atol=1e-5)
            elif CUDA and backend == "triton":  # another kernel, in which the compiler may join other products and sums
                torch.testing.assert_close(limited[name], free[name], rtol=1e-5, atol=1e-6)
            else:
                assert torch.equal(limited[name], free[name]), name


@pytest.mark.parametrize("limit", [0.0, pytest.param(0.3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", ["naive", "triton", "cpu"], indirect=True)
def test_step_by_step_equals_the_whole_sequence(backend: str, limit: float) -> None:
    shape = (3, 9, 2, 12, 5)
    x, weights, state = make_inputs(shape)
    resets = make_resets("many", *shape[:2])
    assert resets is not None
    x, weights, state = x.float().to(DEVICE), _on_device(weights), _on_device(state)
    rule: dict = {"decay": 0.95, "limit": limit, "backend": backend}
    y, final = srwm(x, weights, state, resets=resets, **rule)
    outputs = []
    for t in range(shape[1]):
        y_t, state = srwm(x[:, t : t + 1], weights, state, resets=resets[:, t : t + 1], **rule)
        outputs.append(y_t)
    torch.testing.assert_close(torch.cat(outputs, dim=1), y, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tuple(state), tuple(final), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "limit"),
    [(torch.bool, 0.0), (torch.bool, 0.3), (torch.int64, 0.0), (torch.uint8, 0.3), (torch.float32, 0.3)],
)
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("backend", ["naive", "triton", "cpu"], indirect=True)
def test_a_reset_drops_a_state_that_is_not_finite(backend: str, steps: int, dtype: torch.dtype, limit: float) -> None:
    x, weights, state = make_inputs((3, steps, 1, 8, 6))
    resets = torch.zeros(3, steps, dtype=torch.bool)
    resets[0, 0] = resets[2, 0] = resets[1, -1] = True
    true = run(x, weights, state, resets.to(DEVICE), backend="naive", dtype=torch.float64, limit=limit)
    for block in state:
        block[0], block[2] = torch.nan, torch.inf
    resets = resets.to(DEVICE, dtype) * (1 if dtype == torch.bool else 3)
    got = run(x, weights, state, resets, backend=backend, dtype=torch.float32, limit=limit)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_a_decay_is_undone_over_as_many_steps_as_roundings_allow() -> None:
    assert kernels.steps_at_once(Rule()) is None
    assert kernels.steps_at_once(Rule(decay=0.5)) == 6
    assert kernels.steps_at_once(Rule(decay=1e-9)) == 1
    steps = kernels.steps_at_once(Rule(decay=0.9))
    assert steps == 43
    x, weights, state = make_inputs((1, steps, 1, 8, 8))
    true = run(x, weights, state, None, backend="naive", dtype=torch.float64, decay=0.9)
    got = run(x, weights, state, None, backend="triton", dtype=torch.float32, decay=0.9)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("weights_dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bfloat16_inputs(backend, weights_dtype) -> None:
    shape = (2, 6, 1, 12, 5)
    x, weights, state = make_inputs(shape)
    # What bfloat16 cannot hold is dropped for both sides.
    x, weights = x.bfloat16(), SRWMWeights(*(block.bfloat16() for block in weights))
    state = SRWMState(*(block.float() for block in state))
    resets = make_resets("many", *shape[:2])
    true = run(x, weights, state, resets, backend="naive", dtype=torch.float64)
    for name in (backend, "naive"):
        got = run(x, weights, state, resets, backend=name, dtype=torch.bfloat16, weights_dtype=weights_dtype)
        assert_close(got, true, TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("outputs", [slice(0, 1), slice(1, None), slice(2, 3)], ids=["y", "final", "final.q"])
def test_upstream_gradients_of_some_outputs_only(backend, outputs) -> None:
    x, weights, state = make_inputs((2, 4, 1, 8, 6))
    resets = make_resets("consecutive", 2, 4)
    true = run(x, weights, state, resets, backend="naive", dtype=torch.float64, outputs=outputs)
    got = run(x, weights, state, resets, backend=backend, dtype=torch.float32, outputs=outputs)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("at", [pytest.param([], marks=pytest.mark.slow), [3, 5, 75]], ids=["no resets", "far between"])
def test_long_sequence_undone_step_by_step_stays_accurate(backend, at) -> None:
    """Undoing thousands of updates must not drift: errors add up, they do not grow. Segments longer than 64 steps."""
    shape = (2, 2000, 2, 16, 16) if CUDA else (1, 80, 1, 8, 8)
    x, weights, state = make_inputs(shape)
    x = x.softmax(-1)  # as the RL layer does; keeps the dynamics from amplifying the forward pass's own roundings
    resets = torch.zeros(shape[:2], dtype=torch.bool, device=DEVICE)
    resets[:, at] = True
    true = run(x, weights, state, resets if at else None, backend="naive", dtype=torch.float64)
    got = run(x, weights, state, resets if at else None, backend=backend, dtype=torch.float32)
    assert_close(got, true, 2e-4 if CUDA else TOLERANCE[torch.float32])


def test_two_chained_chunks_equal_one_sequence(backend) -> None:
    def chunked(x, weights, state, *, resets, backend):
        y1, state = srwm(x[:, :3], weights, state, resets=resets[:, :3], backend=backend)
        y2, state = srwm(x[:, 3:], weights, state, resets=resets[:, 3:], backend=backend)
        return torch.cat([y1, y2], dim=1), state

    x, weights, state = make_inputs((2, 7, 1, 8, 6))
    resets = make_resets("consecutive", 2, 7)
    true = run(x, weights, state, resets, backend="naive", dtype=torch.float64)
    got = run(x, weights, state, resets, backend=backend, dtype=torch.float32, op=chunked)
    assert_close(got, true, TOLERANCE[torch.float32])


def test_non_contiguous_arguments(backend) -> None:
    def strided(x, weights, state, *, resets, backend):
        x = x.mT.contiguous().mT
        weights = SRWMWeights(*(block.mT.contiguous().mT for block in weights))
        state = SRWMState(*(block.mT.contiguous().mT for block in state))
        y, final = srwm(x, weights, state, resets=resets.T.contiguous().T, backend=backend)
        return y.expand_as(y), final

    x, weights, state = make_inputs((3, 4, 2, 8, 6))
    resets = make_resets("many", 3, 4)
    true = run(x, weights, state, resets, backend="naive", dtype=torch.float64)
    got = run(x, weights, state, resets, backend=backend, dtype=torch.float32, op=strided)
    assert_close(got, true, TOLERANCE[torch.float32])


def _on_device(blocks):
    return type(blocks)(*(block.float().to(DEVICE) for block in blocks))


def test_without_gradient_nothing_is_kept_and_the_given_state_is_not_touched(backend) -> None:
    x, weights, state = make_inputs((2, 3, 1, 8, 8))
    x, weights, state = x.float().to(DEVICE), _on_device(weights), _on_device(state)
    before = [block.clone() for block in state]
    y, final = srwm(x, weights, state, backend=backend)
    assert not y.requires_grad
    weights = SRWMWeights(*(block.requires_grad_() for block in weights))
    y_grad, final_grad = srwm(x, weights, state, backend=backend)
    with torch.no_grad():
        y_no_grad, _ = srwm(x, weights, state, backend=backend)
    assert y_grad.requires_grad
    assert all(block.requires_grad for block in final_grad)
    for a, b in zip((y, y, *final, *state), (y_grad, y_no_grad, *final_grad, *before), strict=True):
        assert torch.equal(a, b)


def test_no_steps(backend) -> None:
    x, weights, state = make_inputs((2, 0, 1, 8, 6))
    weights, state = _on_device(weights), _on_device(state)
    y, final = srwm(x.float().to(DEVICE), weights, state, backend=backend)
    assert y.shape == (2, 0, 1, 6)
    torch.testing.assert_close(tuple(final), tuple(state))


def test_backward_keeps_memory_linear_in_width() -> None:
    """But for one matrix every CHUNK steps of the compiled kernels."""
    x, weights, _ = make_inputs((2, 3, 1, 16, 16))
    none = [None] * 5
    x, weights = x.float(), SRWMWeights(*(block.float() for block in weights))
    *_, saved = compiled.srwm_forward_op(x, *weights, *none, 1.0, False, 0.0, True)
    assert saved.numel() == 2 * (3 * (4 * 16 + 16 + 8 + 8) + 16 * (3 * 16 + 8))
    *_, saved = kernels.srwm_forward_op(x.to(DEVICE), *_on_device(weights), *none, 1.0, False, 0.0, True)
    assert saved.numel() == 2 * 3 * (4 * 16 + 16 + 8)


def test_gradients_are_deterministic(backend) -> None:
    shape = (64, 20, 8, 16, 16) if CUDA else (3, 4, 1, 8, 8)
    x, weights, state = make_inputs(shape)
    resets = make_resets("many", *shape[:2])
    first, second = (run(x, weights, state, resets, backend=backend, dtype=torch.float32) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("decay", "unit_keys", "limit"), [(1.0, False, 0.0), (0.1, False, 0.0), (0.9, True, 0.0), (0.9, True, 0.4)]
)
@pytest.mark.parametrize("with_state", [True, False], ids=["state", "fresh"])
def test_compiles_without_graph_breaks(backend, with_state, decay, unit_keys, limit) -> None:
    torch.compiler.reset()
    compiled = torch.compile(srwm, fullgraph=True, backend="inductor" if CUDA else "aot_eager")
    x, weights, state = make_inputs((2, 3, 1, 8, 6))
    arguments = (x, weights, state if with_state else None, make_resets("many", 2, 3) if with_state else None)
    rule = {"decay": decay, "unit_keys": unit_keys, "limit": limit}
    true = run(*arguments, backend="naive", dtype=torch.float64, **rule)
    got = run(*arguments, backend=backend, dtype=torch.float32, **rule, op=compiled)
    assert_close(got, true, TOLERANCE[torch.float32])


@pytest.mark.parametrize("with_state", [True, False], ids=["state", "fresh"])
def test_opcheck(backend, with_state) -> None:
    x, weights, state = make_inputs((1, 2, 1, 4, 6))
    leaves = [block.float().to(DEVICE).requires_grad_() for block in (x, *weights, *state)]
    arguments = (
        *leaves[:5],
        *(leaves[5:] if with_state else (None,) * 4),
        make_resets("first", 1, 2),
        0.9,
        True,
        0.5,
        True,
    )
    torch.library.opcheck({"triton": kernels, "cpu": compiled}[backend].srwm_forward_op, arguments)


def test_a_backend_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights, _ = make_inputs((1, 2, 1, 8, 8))
    with pytest.raises(BackendUnavailableError, match="float64"):
        srwm(x.to(DEVICE), SRWMWeights(*(block.to(DEVICE) for block in weights)), backend="triton")
    x, weights, _ = make_inputs((1, 2, 1, 130, 8))
    with pytest.raises(BackendUnavailableError, match="D from 1 to 128, not 130"):
        srwm(x.float().to(DEVICE), _on_device(weights), backend="triton")
    srwm(x.float().to(DEVICE), _on_device(weights), backend="auto")
    monkeypatch.setattr(kernel_helpers, "INTERPRETED", False)
    x, weights, _ = make_inputs((1, 2, 1, 8, 8))
    with pytest.raises(BackendUnavailableError, match="CUDA tensors"):
        srwm(x.float(), SRWMWeights(*(block.float() for block in weights)), backend="triton")


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # importing it raises ImportError
import torch
import srwm_agents.ops as ops
assert not any(name.endswith("triton_kernels") for name in sys.modules)
weights = ops.SRWMWeights(*(torch.randn(1, 8, n) for n in (8, 8, 8, 4)))
ops.srwm(torch.randn(1, 2, 1, 8), weights)
try:
    ops.srwm(torch.randn(1, 2, 1, 8), weights, backend="triton")
except ops.BackendUnavailableError as error:
    print(error)
"""


def test_without_triton_the_package_works_and_the_explicit_backend_says_so() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], capture_output=True, text=True, check=True)
    assert "Triton cannot be imported" in result.stdout


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_runs_on_the_device_of_its_arguments() -> None:
    x, weights, _ = make_inputs((2, 3, 1, 8, 8))
    here, there = (
        srwm(x.float().to(device), SRWMWeights(*(block.float().to(device) for block in weights)), backend="triton")[0]
        for device in ("cuda:0", "cuda:1")
    )
    assert there.device == torch.device("cuda:1")
    assert torch.equal(here.cpu(), there.cpu())
