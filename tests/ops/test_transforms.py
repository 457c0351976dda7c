"""The ops under ``torch.func`` and ``vmap``, naive and on kernels, against loops over the naive op in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, vmap

from srwm_agents.cores import CORES, make_core
from srwm_agents.ops import SRWMState, SRWMWeights, delta_rule, srwm

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported

DEVICE = "cuda" if CUDA else "cpu"
BACKENDS = ["naive", pytest.param("triton", marks=[pytest.mark.gpu] * CUDA), "cpu"]
SLOW_INTERPRETED = ["naive", pytest.param("triton", marks=pytest.mark.gpu if CUDA else pytest.mark.slow), "cpu"]
TOLERANCE = {"naive": 1e-10, "triton": 2e-5, "cpu": 2e-5}
"""Allowed ||got - true|| / ||true||: of float64, and of float32 as in the kernels' own tests."""

SIZE, BATCH, STEPS, HEADS, DIM, OUT = 2, 2, 2, 2, 4, 5
Loss = Callable[..., Tensor]


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_resets(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(9)) < 0.4


def srwm_case(dims: Sequence[int | None]) -> tuple[list[Tensor], list[int | None]]:
    """Arguments x, resets, weights and state in float64, and which dimension of each is mapped."""
    x, resets, weights, state = dims
    blocks = [OUT, DIM, DIM, 4]
    unmapped = [
        normal(SIZE, BATCH, STEPS, HEADS, DIM, seed=0),
        some_resets(SIZE, BATCH, STEPS),
        *(normal(SIZE, HEADS, DIM, width, seed=i + 1) for i, width in enumerate(blocks)),
        *(normal(SIZE, BATCH, HEADS, DIM, width, seed=i + 5, scale=0.3) for i, width in enumerate(blocks)),
    ]
    all_dims = [x, resets, *[weights] * 4, *[state] * 4]
    return [z[0] if d is None else z.movedim(0, d) for z, d in zip(unmapped, all_dims, strict=True)], all_dims


def srwm_loss(backend: str, decay: float = 1.0) -> Loss:
    def loss(x: Tensor, resets: Tensor, *blocks: Tensor) -> Tensor:
        weights, state = SRWMWeights(*blocks[:4]), SRWMState(*blocks[4:])
        y, final = srwm(x, weights, state, resets=resets, decay=decay, backend=backend)
        return y.square().sum() + sum((block.sin().sum() for block in final), torch.zeros_like(y.sum()))

    return loss


def delta_loss(backend: str) -> Loss:
    def loss(q: Tensor, resets: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor) -> Tensor:
        y, final = delta_rule(q, k, v, beta.sigmoid(), state, resets=resets, backend=backend)
        return y.square().sum() + final.sin().sum()

    return loss


def convert(arguments: Sequence[Tensor], backend: str) -> list[Tensor]:
    dtype = torch.float64 if backend == "naive" else torch.float32
    device = "cpu" if backend == "cpu" else DEVICE
    return [z.to(device, dtype if z.is_floating_point() else None) for z in arguments]


def loop(loss: Loss, arguments: Sequence[Tensor], dims: Sequence[int | None]) -> tuple[Tensor, list[Tensor]]:
    """Losses [SIZE], and for each argument but the second (resets) the gradient of each loss, [SIZE, …]."""
    losses, grads = [], []
    for i in range(SIZE):
        entry = [z if d is None else z.select(d, i) for z, d in zip(arguments, dims, strict=True)]
        leaves = [z.detach().clone().requires_grad_() for z in (entry[0], *entry[2:])]
        value = loss(leaves[0], entry[1], *leaves[1:])
        losses.append(value.detach())
        grads.append(torch.autograd.grad(value, leaves))
    return torch.stack(losses), [torch.stack(parts) for parts in zip(*grads, strict=True)]


def assert_close(got: Tensor | Sequence[Tensor], true: Tensor | Sequence[Tensor], tolerance: float) -> None:
    got, true = ([z] if isinstance(z, Tensor) else list(z) for z in (got, true))
    for a, b in zip(got, true, strict=True):
        assert a.shape == b.shape
        assert (a.double().cpu() - b).norm() <= tolerance * b.norm()


def check(make_loss: Callable[[str], Loss], arguments: list[Tensor], dims: list[int | None], backend: str) -> None:
    """vmap, vmap of grad, grad of vmap by both kinds of autograd."""
    losses, grads = loop(make_loss("naive"), arguments, dims)
    loss, given, tolerance = make_loss(backend), convert(arguments, backend), TOLERANCE[backend]
    wanted = tuple(i for i in range(len(given)) if i != 1)
    in_dims = tuple(dims)
    assert_close(vmap(loss, in_dims)(*given), losses, tolerance)
    assert_close(vmap(grad(loss, wanted), in_dims)(*given), grads, tolerance)

    # Of the sum over the mapped entries, for which an argument that is not mapped has one gradient.
    of_sum = [g.sum(0) if dims[i] is None else g.movedim(0, dims[i] or 0) for g, i in zip(grads, wanted, strict=True)]
    assert_close(grad(lambda *z: vmap(loss, in_dims)(*z).sum(), wanted)(*given), of_sum, tolerance)
    leaves = [z.detach().requires_grad_(i != 1) for i, z in enumerate(given)]
    total = vmap(loss, in_dims)(*leaves).sum()
    assert_close(torch.autograd.grad(total, [leaves[i] for i in wanted]), of_sum, tolerance)


@pytest.mark.parametrize("backend", SLOW_INTERPRETED)
@pytest.mark.parametrize(
    "dims",  # of x, resets, weights, state
    [(1, 0, None, None), (2, None, 1, None)],
    ids=["episodes", "weights"],
)
def test_srwm(dims, backend) -> None:
    check(lambda name: srwm_loss(name), *srwm_case(dims), backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_srwm_mapped_over_every_argument(backend) -> None:
    check(lambda name: srwm_loss(name), *srwm_case((0, 0, 0, 2)), backend)


@pytest.mark.parametrize("backend", SLOW_INTERPRETED)
def test_srwm_in_several_launches(backend) -> None:
    """A decay of .02 is undone one step at a time."""
    check(lambda name: srwm_loss(name, decay=0.02), *srwm_case((0, 0, None, 0)), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mapped", [True, False], ids=["all", "keys only"])
def test_delta_rule(mapped, backend) -> None:
    arguments = [
        normal(SIZE, BATCH, STEPS, HEADS, DIM, seed=0),
        some_resets(SIZE, BATCH, STEPS),
        normal(SIZE, BATCH, STEPS, HEADS, DIM, seed=1, scale=0.5),
        normal(SIZE, BATCH, STEPS, HEADS, OUT, seed=2),
        normal(SIZE, BATCH, STEPS, HEADS, seed=3),
        normal(SIZE, BATCH, HEADS, DIM, OUT, seed=4),
    ]
    dims: list[int | None] = [0] * 6 if mapped else [None, None, 3, None, None, None]
    arguments = [z[0] if d is None else z.movedim(0, d) for z, d in zip(arguments, dims, strict=True)]
    check(delta_loss, arguments, dims, backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_jacobian_and_two_maps(backend) -> None:
    arguments, _ = srwm_case((0, 0, 0, 0))
    arguments = [z[0] for z in arguments]
    x, resets, *blocks = convert(arguments, backend)

    def outputs(x: Tensor, backend: str, resets: Tensor, blocks: list[Tensor]) -> Tensor:
        state = SRWMState(*blocks[4:])
        return srwm(x, SRWMWeights(*blocks[:4]), state, resets=resets, backend=backend)[0].sum((0, 2, 3))  # [T]

    true = torch.autograd.functional.jacobian(
        lambda x: outputs(x, "naive", arguments[1], arguments[2:]), arguments[0].clone()
    )
    assert isinstance(true, Tensor)
    assert_close(jacrev(outputs)(x, backend, resets, blocks), true, TOLERANCE[backend])  # pyright: ignore[reportArgumentType]

    loss = srwm_loss(backend)
    scales = torch.tensor([[1.0], [0.2]], dtype=x.dtype, device=x.device)
    mapped = vmap(vmap(grad(lambda s: loss(s * x, resets, *blocks))))(scales)
    naive = srwm_loss("naive")
    expected = torch.tensor(
        [
            [grad(lambda s: naive(s * arguments[0], *arguments[1:]))(s).item() for s in row]
            for row in scales.double().cpu()
        ],
        dtype=torch.float64,
    )
    assert_close(mapped, expected, TOLERANCE[backend])


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_second_derivative_on_kernels_is_an_error(backend) -> None:
    arguments, _ = srwm_case((None, None, None, None))
    x, *rest = convert(arguments, backend)
    loss = srwm_loss(backend)
    with pytest.raises(NotImplementedError, match="take second derivatives with backend='naive'"):
        grad(lambda x: grad(loss)(x, *rest).sum())(x)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(loss(x, *rest), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="take second derivatives with backend='naive'"):
        dx.sum().backward()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tangent_is_computed_or_an_error(backend) -> None:
    arguments, _ = srwm_case((None, None, None, None))
    x, *rest = convert(arguments, backend)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        if backend == "naive":
            assert forward_ad.unpack_dual(srwm_loss(backend)(dual, *rest)).tangent is not None
        else:
            with pytest.raises(NotImplementedError, match="forward mode AD"):
                srwm_loss(backend)(dual, *rest)


@pytest.mark.parametrize("name", CORES)
def test_an_ensemble_of_cores(name) -> None:
    """As in the documentation of ``torch.func.stack_module_state``: two cores on the same input."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        **{"input_size": 5, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ff_size": 16},
        "rollout_length": 3,
    }
    cores = [make_core(name, **settings).double() for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(list(cores))  # pyright: ignore[reportArgumentType]
    x, resets = normal(3, 4, 5, seed=0), some_resets(3, 4)
    state = normal(3, cores[0].state_size, seed=1, scale=0.1)
    if name == "srwm_no_carry":
        state[:, -1] = 0  # where it counts its steps

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        out, final = functional_call(cores[0], (parameters, buffers), (x, state, resets))
        return out.square().sum() + final.sum()

    grads = vmap(grad(loss))(parameters, buffers)
    for i, core in enumerate(cores):
        out, final = core(x, state, resets)
        (out.square().sum() + final.sum()).backward()
        for key, parameter in core.named_parameters():
            true = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(grads[key][i], true, rtol=1e-9, atol=1e-9)
