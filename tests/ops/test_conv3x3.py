"""3×3 convolutions of few channels and the residual block: natively on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional

CUDA = torch.cuda.is_available()
if not CUDA:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported
pytest.importorskip("triton", reason="Triton is not installed")

from srwm_agents.ops import BackendUnavailableError, conv3x3, residual_block  # noqa: E402
from srwm_agents.ops.conv3x3.autograd import (  # noqa: E402
    conv3x3_input_gradient_op,
    conv3x3_op,
    conv3x3_weight_gradient_op,
    residual_block_backward_op,
    residual_block_op,
)

pytestmark = [pytest.mark.gpu] if CUDA else []
DEVICE = "cuda" if CUDA else "cpu"

ULP = 4e-3 if CUDA else 8e-3
"""What one conversion to bfloat16 may change a number by: a GPU rounds to the nearest, the interpreter cuts off."""
CUT = 1e-4 if CUDA else 1e-5
"""Beside numbers of size 1: a tensor core cuts off the last digits of its float32 sums."""

SHAPES = [
    (2, 16, 6, 7, 16),
    (1, 16, 1, 1, 32),
    (3, 32, 8, 8, 32),
    (5, 32, 5, 3, 16),
    (1, 64, 4, 9, 64),
]  # N, C, H, W, O
if CUDA:
    SHAPES += [
        (700, 16, 32, 32, 16),
        (300, 16, 32, 32, 32),
        (300, 32, 16, 16, 32),
        (301, 32, 8, 8, 32),
        (9, 64, 42, 42, 64),
        (200, 3, 64, 64, 16),
        (70000, 1, 8, 8, 16),
    ]


def normal(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    """Whole bfloat16 numbers, channels-last."""
    values = scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    values = values.bfloat16().to(DEVICE)
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def weights(out: int, channels: int, seed: int) -> Tensor:
    """Float32 weights of whole bfloat16 numbers, which the kernels' products are made of."""
    return normal(out, channels, 3, 3, seed=seed, scale=(9 * channels) ** -0.5).float().contiguous()


def relative_error(got: Tensor, expected: Tensor) -> float:
    return ((got.double() - expected).norm() / expected.norm().clamp(min=1e-12)).item()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_convolution_and_its_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    n, channels, height, width, out = shape
    x, dy = normal(n, channels, height, width, seed=0), normal(n, out, height, width, seed=1)
    operands = [x, weights(out, channels, 2), normal(out, seed=3, scale=0.3).float()]
    operands = [operand.requires_grad_() for operand in operands]
    y = conv3x3(*operands, backend="triton")
    gradients = torch.autograd.grad(y, operands, dy)
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    y_exact = functional.conv2d(exact[0], exact[1], exact[2], padding=1)
    exact_gradients = torch.autograd.grad(y_exact, exact, dy.double())
    assert y.dtype == gradients[0].dtype == torch.bfloat16
    assert gradients[1].dtype == torch.float32
    torch.testing.assert_close(y.double(), y_exact, rtol=ULP, atol=CUT)
    torch.testing.assert_close(gradients[0].double(), exact_gradients[0], rtol=ULP, atol=CUT)
    for got, expected in zip(gradients[1:], exact_gradients[1:], strict=True):
        assert relative_error(got, expected) < CUT


def block_operands(n: int, channels: int, height: int, width: int) -> list[Tensor]:
    return [
        normal(n, channels, height, width, seed=0),
        weights(channels, channels, 1),
        normal(channels, seed=2, scale=0.3).float(),
        weights(channels, channels, 3),
        normal(channels, seed=4, scale=0.3).float(),
    ]


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[1] == shape[4]])
def test_a_residual_block_and_its_gradients_are_pytorchs(shape: tuple[int, ...]) -> None:
    operands = [operand.requires_grad_() for operand in block_operands(*shape[:4])]
    dy = normal(*shape[:4], seed=5)
    y = residual_block(*operands, backend="triton")
    gradients = torch.autograd.grad(y, operands, dy)
    exact = [operand.detach().double().requires_grad_() for operand in operands]
    y_exact = residual_block(*exact, backend="naive")
    exact_gradients = torch.autograd.grad(y_exact, exact, dy.double())
    # The first convolution's output and its gradient are rounded to bfloat16 on the way; a number whose sign changes
    # by that passes or loses its gradient.
    torch.testing.assert_close(y.double(), y_exact, rtol=3 * ULP, atol=3 * ULP)
    for got, expected in zip(gradients, exact_gradients, strict=True):
        assert relative_error(got, expected) < 2 * ULP


def test_the_naive_block_is_the_definition() -> None:
    x, *parameters = (operand.double() for operand in block_operands(2, 16, 5, 4))
    first, second = (torch.nn.Conv2d(16, 16, 3, padding=1, dtype=torch.float64, device=DEVICE) for _ in range(2))
    first.load_state_dict({"weight": parameters[0], "bias": parameters[1]})
    second.load_state_dict({"weight": parameters[2], "bias": parameters[3]})
    assert torch.equal(residual_block(x, *parameters, backend="naive"), x + second(first(x.relu()).relu()))


def test_other_layouts_are_taken() -> None:
    x, *parameters = block_operands(2, 16, 6, 5)
    expected = residual_block(x, *parameters, backend="triton")
    assert torch.equal(residual_block(x.contiguous(), *parameters, backend="triton"), expected)
    assert torch.equal(residual_block(x.repeat_interleave(2, 0)[::2], *parameters, backend="triton"), expected)


def test_what_is_outside_the_batch_is_not_read() -> None:
    """NaN before and after the batch in memory changes nothing."""
    x, *parameters = block_operands(3, 16, 5, 7)
    around = torch.full((5, 16, 5, 7), float("nan"), dtype=torch.bfloat16, device=DEVICE)
    around = around.contiguous(memory_format=torch.channels_last)
    around[1:4] = x
    expected = residual_block(x, *parameters, backend="triton")
    assert torch.equal(residual_block(around[1:4], *parameters, backend="triton"), expected)


@pytest.mark.slow
def test_gradients_are_deterministic() -> None:
    operands = [operand.requires_grad_() for operand in block_operands(7, 16, 8, 8)]
    dy = normal(7, 16, 8, 8, seed=5)
    rounds = [torch.autograd.grad(residual_block(*operands, backend="triton"), operands, dy) for _ in range(3)]
    assert all(torch.equal(got, first) for other in rounds for got, first in zip(other, rounds[0], strict=True))


@pytest.mark.slow
def test_the_operators_are_well_registered() -> None:
    operands = [operand.requires_grad_() for operand in block_operands(2, 16, 4, 4)]
    dy = normal(2, 16, 4, 4, seed=5)
    torch.library.opcheck(conv3x3_op, tuple(operands[:3]))
    torch.library.opcheck(conv3x3_op, (*operands[:2], None))
    torch.library.opcheck(residual_block_op, tuple(operands))
    x, weight_1, _, weight_2, _ = (operand.detach() for operand in operands)
    torch.library.opcheck(conv3x3_input_gradient_op, (weight_1, dy))
    torch.library.opcheck(conv3x3_weight_gradient_op, (x, dy))
    torch.library.opcheck(residual_block_backward_op, (x, x + 1, weight_1, weight_2, dy))


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((1, 4, 4), (16, 16, 3, 3), r"x has shape \[1, 4, 4\], expected \[N, C, H, W\]"),
        ((1, 16, 4, 4), (16, 8, 3, 3), r"weight has shape \[16, 8, 3, 3\], expected \[O, C, 3, 3\] = \[16, 16, 3, 3\]"),
        ((1, 16, 4, 4), (16, 16, 5, 5), r"weight has shape"),
    ],
)
def test_wrong_shapes_are_named(x: tuple[int, ...], weight: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv3x3(torch.zeros(x), torch.zeros(weight))


def test_a_wrong_bias_or_backend_is_named() -> None:
    x, weight, bias = torch.zeros(1, 16, 4, 4), torch.zeros(16, 16, 3, 3), torch.zeros(16)
    with pytest.raises(ValueError, match=r"bias_2 has shape \[3\], expected \[C\] = \[16\]"):
        residual_block(x, weight, bias, weight, torch.zeros(3))
    with pytest.raises(ValueError, match=r"bias has shape \[3\], expected \[O\] = \[16\]"):
        conv3x3(x, weight, torch.zeros(3))
    with pytest.raises(ValueError, match="backend is 'cudnn'"):
        residual_block(x, weight, bias, weight, bias, backend="cudnn")


def test_what_the_kernels_do_not_take_is_said() -> None:
    with pytest.raises(BackendUnavailableError, match="16, 32, 64 channels, not 8"):
        conv3x3(torch.zeros(1, 16, 4, 4), torch.zeros(8, 16, 3, 3), backend="triton")
    with pytest.raises(BackendUnavailableError, match="16, 32, 64 channels, not 65"):
        conv3x3(torch.zeros(1, 65, 4, 4), torch.zeros(16, 65, 3, 3), backend="triton")
    weight, bias = torch.zeros(4, 4, 3, 3), torch.zeros(4)
    with pytest.raises(BackendUnavailableError, match="16, 32, 64 channels, not 4"):
        residual_block(torch.zeros(1, 4, 4, 4), weight, bias, weight, bias, backend="triton")
    with pytest.raises(BackendUnavailableError, match=r"torch.bfloat16, not torch.float32"):
        conv3x3(torch.zeros(1, 16, 4, 4), torch.zeros(16, 16, 3, 3), backend="triton")
