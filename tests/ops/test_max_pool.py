"""Max-pooling's kernels against PyTorch's own: natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import BackendUnavailableError, max_pool  # noqa: E402
from srwm_agents.ops.max_pool.autograd import max_pool_backward_op, max_pool_op  # noqa: E402

pytestmark = [pytest.mark.gpu] if CUDA else []
DEVICE = "cuda" if CUDA else "cpu"

SHAPES = [(2, 3, 6, 8), (1, 16, 5, 7), (3, 1, 1, 1), (1, 5, 2, 3), (2, 40, 9, 4)]
if CUDA:
    SHAPES += [(70000, 2, 4, 4), (64, 16, 64, 64), (33, 32, 32, 32)]


def both(x: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """[output, gradient] of the kernels and of PyTorch in float64, under the same upstream gradient."""
    results = []
    upstream = None
    for backend, dtype in (("triton", x.dtype), ("naive", torch.float64)):
        leaf = x.to(dtype).requires_grad_()
        y = max_pool(leaf, backend=backend)
        if upstream is None:
            upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
        (grad,) = torch.autograd.grad(y, leaf, upstream.to(dtype))
        results.append([y.detach().double(), grad.double()])
    return results[0], results[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_pytorchs(shape: tuple[int, ...], dtype: torch.dtype, layout) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE, dtype)
    x = x.contiguous(memory_format=layout)
    (y, grad), (y_true, grad_true) = both(x)
    assert torch.equal(y, y_true)
    # At most four upstream gradients are added, and rounded once to the dtype.
    torch.testing.assert_close(grad, grad_true, rtol=8e-3 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_the_first_of_equal_numbers_gets_the_gradient() -> None:
    """As after a ReLU, where whole windows are zero; which one gets it must not depend on the backend."""
    x = torch.randint(3, (2, 8, 10, 12), generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.float32)
    (y, grad), (y_true, grad_true) = both(x)
    assert torch.equal(y, y_true)
    torch.testing.assert_close(grad, grad_true, rtol=1e-6, atol=1e-6)


def test_nan_and_infinity_pass_as_in_pytorch() -> None:
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    x[0, 0, 3, 3], x[0, 1, 2, 2], x[0, 1, 6] = float("nan"), float("inf"), float("-inf")
    torch.testing.assert_close(max_pool(x, backend="triton"), max_pool(x, backend="naive"), equal_nan=True)


def test_the_operators_are_well_registered() -> None:
    x = torch.randn(2, 3, 5, 6, device=DEVICE, requires_grad=True)
    torch.library.opcheck(max_pool_op, (x,))
    y, taps = max_pool_op(x.detach())
    torch.library.opcheck(max_pool_backward_op, (y, taps, 5, 6))


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"x has shape \[3, 4, 4\], expected \[N, C, H, W\]"):
        max_pool(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="backend is 'cuda', allowed: auto, naive, triton"):
        max_pool(torch.zeros(1, 3, 4, 4), backend="cuda")
    with pytest.raises(BackendUnavailableError, match="float64"):
        max_pool(torch.zeros(1, 3, 4, 4, dtype=torch.float64, device=DEVICE), backend="triton")


def test_the_same_as_functional() -> None:
    x = torch.randn(2, 3, 7, 8)
    assert torch.equal(max_pool(x), functional.max_pool2d(x, 3, stride=2, padding=1))
