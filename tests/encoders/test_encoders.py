"""Encoders: shapes, bytes and floats, size of the IMPALA net, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from srwm_agents.encoders import ENCODERS, ImageEncoder, ObservationEncoder, ObservationNormalizer
from srwm_agents.encoders.impala import ConvPool


@pytest.mark.parametrize("name", ENCODERS)
def test_shapes(name: str) -> None:
    encoder = ImageEncoder(name, (3, 64, 64), (256,))
    assert encoder(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)).shape == (2, encoder.output_size) == (2, 256)


def test_impala_has_15_convolutions_of_16_32_32_channels() -> None:
    convs = [m for m in ImageEncoder("resnet_impala", (3, 64, 64)).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [16] * 5 + [32] * 10


def test_bytes_are_scaled_to_the_unit_interval() -> None:
    encoder = ImageEncoder("convnet_impala", (3, 64, 64))
    image = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(encoder(image), encoder(image.float() / 255))


def test_observations_are_joined_in_order() -> None:
    encoder = ObservationEncoder(
        ImageEncoder("convnet_impala", (3, 64, 64), (8,)), {"last_reward": 1, "last_action": 15}
    )
    assert encoder.output_size == 24
    extras = {"last_reward": torch.tensor([[0.5]]), "last_action": torch.eye(15)[3:4]}
    out = encoder({"obs": torch.zeros(1, 3, 64, 64, dtype=torch.uint8), **extras})
    torch.testing.assert_close(out[0, 8:], torch.cat([extras["last_reward"][0], extras["last_action"][0]]))


def test_the_normalizer_is_the_identity_by_default() -> None:
    image = torch.randint(256, (1, 3, 4, 4), dtype=torch.uint8)
    assert ObservationNormalizer()({"obs": image})["obs"] is image
    scaled = ObservationNormalizer(128.0, 64.0)({"obs": image})["obs"]
    torch.testing.assert_close(scaled, (image.float() - 128) / 64)


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown encoder 'resnet50', allowed: resnet_impala"):
        ImageEncoder("resnet50", (3, 64, 64))
    with pytest.raises(ValueError, match="too small"):
        ImageEncoder("convnet_atari", (3, 8, 8))
    with pytest.raises(ValueError, match="unknown nonlinearity 'gelu'"):
        ImageEncoder("convnet_atari", (3, 64, 64), nonlinearity="gelu")


def test_bias_and_pooling_commute() -> None:
    torch.manual_seed(0)
    layer, x = ConvPool(3, 16), torch.randn(2, 3, 11, 12)
    expected = functional.max_pool2d(layer.conv(x), 3, stride=2, padding=1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.gpu
def test_impala_is_equal_on_gpu_and_cpu(monkeypatch) -> None:
    """Padded channels and the pooling kernel change nothing, compiled or not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet_impala", (3, 64, 64))
    images = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8)
    results = []
    for device, compiled in (("cpu", False), ("cuda", False), ("cuda", True)):
        encoder.zero_grad()
        encoder.to(device)
        if compiled:
            encoder.compile()
        out = encoder(images.to(device))
        out.square().sum().backward()
        gradients: list[Any] = [p.grad for p in encoder.parameters()]
        results.append([out.detach().cpu(), *(grad.cpu() for grad in gradients)])
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


@pytest.mark.gpu
def test_the_fused_first_layer_is_the_same_to_bfloat16() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet_impala", (3, 64, 64)).cuda()
    images = torch.randint(256, (50, 3, 64, 64), dtype=torch.uint8, device="cuda")
    results = []
    for bytes_or_floats in (images, images.float() / 255):
        encoder.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            out = encoder(bytes_or_floats)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad for p in encoder.parameters())])
    for got, expected in zip(*results, strict=True):
        # Two ways of rounding to bfloat16, through 15 layers.
        assert (got - expected).norm() < 0.05 * expected.norm()
