"""Convolution and pooling of bytes in one kernel, against PyTorch: natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn import functional

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import BackendUnavailableError, conv_pool  # noqa: E402
from srwm_agents.ops.conv_pool.autograd import conv_pool_backward_op, conv_pool_op  # noqa: E402

pytestmark = [pytest.mark.gpu] if CUDA else []
DEVICE = "cuda" if CUDA else "cpu"

ULP = 4e-3 if CUDA else 8e-3
"""What one conversion to bfloat16 may change a number by: a GPU rounds to the nearest, the interpreter cuts off."""

SHAPES = [(2, 3, 8, 10, 16), (1, 1, 5, 7, 16), (3, 4, 1, 3, 32), (1, 7, 13, 23, 16)]  # N, C, H, W, O
if CUDA:
    SHAPES += [(2500, 3, 64, 64, 16), (3, 3, 84, 84, 64), (70000, 1, 4, 4, 16)]


def inputs(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """image, weight, dy; weight and dy are whole bfloat16 numbers, which the kernels' products are made of."""
    n, c, h, w, out = shape
    g = torch.Generator().manual_seed(0)
    image = torch.randint(256, (n, c, h, w), generator=g, dtype=torch.uint8)
    weight = torch.randn(out, c, 3, 3, generator=g).bfloat16().float()
    dy = torch.randn(n, out, (h + 1) // 2, (w + 1) // 2, generator=g).bfloat16()
    return image.to(DEVICE), weight.to(DEVICE), dy.to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_the_weights_gradient_are_pytorchs(shape: tuple[int, ...]) -> None:
    image, weight, dy = inputs(shape)
    weight.requires_grad_()
    y = conv_pool(image, weight, backend="triton")
    (grad,) = torch.autograd.grad(y, weight, dy)
    true_weight = weight.detach().double().requires_grad_()
    y_true = functional.max_pool2d(functional.conv2d(image.double() / 255, true_weight, padding=1), 3, 2, 1)
    (grad_true,) = torch.autograd.grad(y_true, true_weight, dy.double())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), y_true, rtol=ULP, atol=1e-5)
    # Sums of up to four gradients are rounded to bfloat16; and where two pixels of a window are equal but for float32's
    # rounding, the other one may get the gradient.
    error = ((grad.double() - grad_true).norm() / grad_true.norm()).item()
    assert error < ULP


def test_the_naive_backend_is_the_same_function() -> None:
    image, weight, _ = inputs((2, 3, 9, 8, 16))
    got, expected = conv_pool(image, weight, backend="triton"), conv_pool(image, weight, backend="naive")
    torch.testing.assert_close(got, expected, rtol=8e-3, atol=1e-5)  # one unit in the last place of bfloat16


def test_gradients_are_deterministic() -> None:
    image, weight, dy = inputs((5, 3, 16, 16, 16))
    weight.requires_grad_()
    grads = [torch.autograd.grad(conv_pool(image, weight, backend="triton"), weight, dy)[0] for _ in range(3)]
    assert all(torch.equal(grad, grads[0]) for grad in grads)


def test_the_operators_are_well_registered() -> None:
    image, weight, dy = inputs((2, 3, 6, 6, 16))
    torch.library.opcheck(conv_pool_op, (image, weight.requires_grad_()))
    taps = conv_pool_op(image, weight.detach())[1]
    torch.library.opcheck(conv_pool_backward_op, (image, dy, taps))


@pytest.mark.parametrize(
    ("image", "weight", "message"),
    [
        (torch.zeros(1, 3, 4, 4), (16, 3, 3, 3), r"image is torch.float32 \[1, 3, 4, 4\], expected uint8"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), (16, 4, 3, 3), r"weight has shape .*, expected \[O, 3, 3, 3\]"),
    ],
)
def test_wrong_arguments(image: torch.Tensor, weight: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_pool(image, torch.zeros(weight))


@pytest.mark.parametrize(("channels", "out", "reason"), [(8, 16, "at most 7 channels"), (3, 20, "not 20")])
def test_what_the_kernels_do_not_take(channels: int, out: int, reason: str) -> None:
    image = torch.zeros(1, channels, 4, 4, dtype=torch.uint8, device=DEVICE)
    weight = torch.zeros(out, channels, 3, 3, device=DEVICE)
    with pytest.raises(BackendUnavailableError, match=reason):
        conv_pool(image, weight, backend="triton")
    assert conv_pool(image, weight).shape == (1, out, 2, 2)
