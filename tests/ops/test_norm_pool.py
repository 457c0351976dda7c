"""Batch norm's kernels against PyTorch's own in float64: natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import math
import os

import pytest
import torch

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import BackendUnavailableError, norm_pool  # noqa: E402
from srwm_agents.ops.norm_pool.autograd import norm_pool_backward_op, norm_pool_op  # noqa: E402

pytestmark = [pytest.mark.gpu] if CUDA else []
DEVICE = "cuda" if CUDA else "cpu"

SHAPES = [(2, 3, 6, 8), (3, 16, 5, 7), (9, 5, 2, 3), (2, 72, 9, 4)]
if CUDA:
    SHAPES += [(70000, 2, 4, 4), (128, 64, 84, 84), (33, 320, 10, 10), (500, 80, 21, 21)]


def both(shape: tuple[int, ...], dtype: torch.dtype, residual: bool, **options) -> tuple[dict, dict]:
    """Outputs, running statistics and gradients of the kernels and of PyTorch in float64."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *size: torch.randn(*size, generator=generator).to(DEVICE)  # noqa: E731
    channels = shape[1]
    # A mean many deviations from zero, as bias-free convolutions of bright images have.
    inputs = {
        "x": (draw(*shape) + 10 * draw(1, channels, 1, 1)).to(dtype),
        "weight": draw(channels),
        "bias": draw(channels),
    }
    if residual:
        inputs["residual"] = draw(*shape).to(dtype)
    upstream = None
    results = []
    for backend in ("triton", "naive"):
        exact = (lambda z: z) if backend == "triton" else (lambda z: z.double())
        leaves = {name: exact(entry).clone().requires_grad_() for name, entry in inputs.items()}
        running = {
            "running_mean": exact(torch.ones(channels, device=DEVICE)),
            "running_var": exact(torch.ones(channels, device=DEVICE)),
        }
        y = norm_pool(**leaves, **running, training=True, backend=backend, **options)
        upstream = draw(*y.shape).to(y.dtype) if upstream is None else upstream
        gradients = torch.autograd.grad(y, list(leaves.values()), upstream.to(y.dtype))
        results.append(
            {"y": y.detach(), **running, **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)}}
        )
    return results[0], results[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize(("residual", "slope"), [(False, 0.0), (True, 0.1), (False, 1.0)])
def test_outputs_gradients_and_statistics_are_pytorchs(shape, pool: bool, residual: bool, slope: float) -> None:
    mine, true = both(shape, torch.float32, residual, pool=pool, slope=slope)
    assert mine.keys() == true.keys()
    many = math.prod(shape) > 100_000
    for name, entry in mine.items():
        if many and name.startswith("d"):
            # Of a million numbers some are within rounding of the activation's edge or of their window's largest, and
            # their gradient is another one's: few enough to be lost in the norm. The small shapes have none.
            error = (entry.double() - true[name]).norm() / true[name].norm()
            assert error < 1e-2, f"{name}: {error}"
        else:
            # In units of the largest number: sums over many pixels are rounded.
            error = (entry.double() - true[name]).abs().max() / true[name].abs().max()
            assert error < 2e-5, f"{name}: {error}"


@pytest.mark.parametrize("pool", [True, False])
def test_bfloat16(pool: bool) -> None:
    mine, true = both((4, 16, 6, 6), torch.bfloat16, residual=True, pool=pool, slope=0.1)
    assert mine["y"].dtype == mine["dx"].dtype == torch.bfloat16
    for name, entry in mine.items():
        # Rounded once in the end; the sign of a number near zero may differ from the exact one's.
        error = (entry.double() - true[name]).norm() / true[name].norm()
        assert error < 1e-2, f"{name}: {error}"


def test_strides_do_not_matter() -> None:
    x, upstream = torch.randn(2, 4, 6, 6, device=DEVICE), torch.randn(2, 4, 3, 3, device=DEVICE)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        vectors = [torch.ones(4, device=DEVICE) for _ in range(4)]
        y = norm_pool(leaf, *vectors, training=True, backend="triton")
        results.append((y, *torch.autograd.grad(y, leaf, upstream.contiguous(memory_format=layout))))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_in_evaluation_the_running_statistics_are_used_and_left() -> None:
    x = torch.randn(2, 3, 4, 4)
    mean, variance = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0])
    y = norm_pool(x, torch.ones(3), torch.zeros(3), mean, variance, training=False, pool=False, slope=1.0)
    torch.testing.assert_close(y, (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt())
    assert mean.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("pool", "residual"), [(True, True), (False, False)])
def test_the_operators_are_well_registered(pool: bool, residual: bool) -> None:
    x = torch.randn(2, 3, 5, 6, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.randn(3, device=DEVICE, requires_grad=True) for _ in range(2))
    extra = torch.randn_like(x, requires_grad=True) if residual else None
    torch.library.opcheck(norm_pool_op, (x, weight, bias, extra, pool, 0.1, 1e-5))
    outputs = norm_pool_op(x.detach(), weight.detach(), bias.detach(), extra, pool, 0.1, 1e-5)
    y, *rest = (entry.detach() for entry in outputs)
    arguments = (torch.randn_like(y), x.detach(), weight.detach(), y, *rest, residual, pool, 0.1, 1e-5)
    torch.library.opcheck(norm_pool_backward_op, arguments)


def test_errors() -> None:
    vectors = [torch.ones(3) for _ in range(4)]
    with pytest.raises(ValueError, match=r"x has shape \[3, 4, 4\], expected \[N, C, H, W\]"):
        norm_pool(torch.zeros(3, 4, 4), *vectors, training=True)
    with pytest.raises(ValueError, match=r"weight has shape \[3\], expected \[C\] = \[2\]"):
        norm_pool(torch.zeros(1, 2, 4, 4), *vectors, training=True)
    with pytest.raises(ValueError, match=r"residual has shape \[1, 3, 2, 2\]"):
        norm_pool(torch.zeros(1, 3, 4, 4), *vectors, training=True, residual=torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="slope is -1, expected at least 0"):
        norm_pool(torch.zeros(1, 3, 4, 4), *vectors, training=True, slope=-1)
    with pytest.raises(ValueError, match="backend is 'cuda', allowed: auto, naive, triton"):
        norm_pool(torch.zeros(1, 3, 4, 4), *vectors, training=True, backend="cuda")
    with pytest.raises(BackendUnavailableError, match="it is for training"):
        norm_pool(torch.zeros(1, 3, 4, 4, device=DEVICE), *vectors, training=False, backend="triton")
