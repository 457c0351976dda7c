"""Image encoders by name: uint8 pixels in, a feature vector out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from srwm_agents.encoders.convnet import plain_convs
from srwm_agents.encoders.impala import ConvPool, impala_convs

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "tanh": nn.Tanh}

Convs = Callable[[int, type[nn.Module]], nn.Sequential]

# Names as Sample Factory spells them in --encoder_conv_architecture, with the same layers behind each; the second and
# third are ours.
ENCODERS: dict[str, Convs] = {
    "resnet_impala": lambda c, act: impala_convs(c, (16, 32, 32), act),
    "resnet_impala_wide": lambda c, act: impala_convs(c, (32, 64, 64), act),
    "resnet_impoola": lambda c, act: impala_convs(c, (16, 32, 32), act).append(nn.AdaptiveAvgPool2d(1)),
    "convnet_simple": lambda c, act: plain_convs(c, [(32, 8, 4), (64, 4, 2), (128, 3, 2)], act),
    "convnet_impala": lambda c, act: plain_convs(c, [(16, 8, 4), (32, 4, 2)], act),
    "convnet_atari": lambda c, act: plain_convs(c, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], act),
}


@torch.no_grad()
def output_size(encoder: nn.Module, image_shape: Sequence[int]) -> int:
    """How many numbers an encoder makes of one image, at little cost however large both are.

    Sizes that would take time and memory are computed on the meta device, whose first convolution in a process takes a
    second (PyTorch imports SymPy).
    """
    weights = encoder.state_dict()
    widest = max((tensor.shape[0] for tensor in weights.values() if tensor.dim()), default=1)
    device = "cpu" if math.prod(image_shape[1:]) * widest < 10_000_000 else "meta"
    weights = {name: torch.zeros(tensor.shape, dtype=tensor.dtype, device=device) for name, tensor in weights.items()}
    image = torch.zeros(1, *image_shape, device=device)
    return functional_call(encoder, weights, (image,)).numel()


class ImageEncoder(nn.Module):
    """Convolutions, then fully connected layers: [N, C, H, W] -> [N, output_size] float32.

    uint8 images are divided by 255 here, on the device, so that a quarter of the bytes is copied to it; float images
    are not scaled.
    """

    def __init__(
        self, name: str, image_shape: Sequence[int], mlp_layers: Sequence[int] = (256,), nonlinearity: str = "relu"
    ) -> None:
        """Make an encoder.

        Args:
            name: a key of ``ENCODERS``; "resnet_impala" has 15 convolutions, "resnet_impala_wide" twice the channels
                (Cobbe et al., ICML 2020, section 3), "resnet_impoola" global average pooling in place of flattening
                (Trumpp et al., RLJ 2025, arXiv:2503.05546); the convnets suit a CPU.
            image_shape: (C, H, W).
            mlp_layers: widths of the fully connected layers; empty gives the flattened convolutions' output.
            nonlinearity: "relu" | "elu" | "tanh".

        Raises:
            ValueError: an unknown name or nonlinearity, a shape that is not (C, H, W), an image too small.
        """
        super().__init__()
        if name not in ENCODERS:
            raise ValueError(f"unknown encoder {name!r}, allowed: {', '.join(ENCODERS)}")
        if nonlinearity not in ACTIVATIONS:
            raise ValueError(f"unknown nonlinearity {nonlinearity!r}, allowed: {', '.join(ACTIVATIONS)}")
        if len(image_shape) != 3:
            raise ValueError(f"image_shape is {tuple(image_shape)}, expected (C, H, W)")
        activation = ACTIVATIONS[nonlinearity]
        self.convs = ENCODERS[name](image_shape[0], activation)
        try:
            size = output_size(self.convs, image_shape)
        except RuntimeError as error:
            raise ValueError(
                f"images of {tuple(image_shape)} are too small (or far too large) for encoder {name!r}"
            ) from error
        layers: list[nn.Module] = []
        for width in mlp_layers:
            layers += [nn.Linear(size, width), activation()]
            size = width
        self.mlp = nn.Sequential(*layers)
        self.output_size = size

    def forward(self, image: Tensor) -> Tensor:
        first = self.convs[0]
        if image.dtype == torch.uint8 and not (isinstance(first, ConvPool) and first.takes_bytes(image)):
            image = image.float() / 255
        if image.is_floating_point():  # convolutions are faster in this layout, on a GPU and on a CPU
            image = image.contiguous(memory_format=torch.channels_last)
        return self.mlp(self.convs(image).flatten(1)).float()
