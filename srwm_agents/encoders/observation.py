"""Encoder of dict observations: features of images, joined with numbers and one-hot categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from srwm_agents.encoders.image import ACTIVATIONS, ImageEncoder

IMAGE_KEY = "obs"


class OneHot(nn.Module):
    """Indices [N, K], the k-th from 0 to ``sizes[k] - 1``, to their one-hot codes, float32 [N, sum(sizes)].

    An index out of its range gives zeros: what is outside of an observation's space is told by whoever checks it.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        columns = [column for column, size in enumerate(sizes) for _ in range(size)]
        values = [value for size in sizes for value in range(size)]
        # Not of the saved weights: they follow from the sizes.
        self.columns: Tensor
        self.values: Tensor
        self.register_buffer("columns", torch.tensor(columns), persistent=False)
        self.register_buffer("values", torch.tensor(values), persistent=False)

    def forward(self, indices: Tensor) -> Tensor:
        return indices.long()[:, self.columns].eq(self.values).float()


class ObservationEncoder(nn.Module):
    """Entries of an observation -> [N, output_size]: images through convolutions, joined with everything else.

    Images go through an :class:`ImageEncoder` each; numbers as they are and categories one-hot are joined and go
    through fully connected layers, if there are any. For Procgen there is the image "obs", and the numbers are
    ``last_reward`` [N, 1] and, if the agent wants it, ``last_action`` [N, 15], joined as they are.
    """

    def __init__(
        self,
        image: ImageEncoder | None,
        extras: Mapping[str, int],
        *,
        more_images: Mapping[str, ImageEncoder] | None = None,
        categories: Mapping[str, Sequence[int]] | None = None,
        mlp_layers: Sequence[int] = (),
        nonlinearity: str = "relu",
    ) -> None:
        """Make an encoder.

        Args:
            image: of the entry "obs"; None where that is no image.
            extras: the names of the entries of numbers and their widths, in the order in which they are joined.
            more_images: encoders of other entries.
            categories: the names of the entries of categories, [N, K], and the K numbers of values.
            mlp_layers: widths of the fully connected layers for numbers and categories; empty: none.
            nonlinearity: "relu" | "elu" | "tanh", after each of these.

        Raises:
            ValueError: there are no entries.
        """
        super().__init__()
        self.image = image
        self.more_images = nn.ModuleDict(dict(more_images or {}))
        self.extras = dict(extras)
        self.one_hot = nn.ModuleDict({name: OneHot(sizes) for name, sizes in (categories or {}).items()})
        size = sum(self.extras.values()) + sum(sum(sizes) for sizes in (categories or {}).values())
        layers: list[nn.Module] = []
        for width in mlp_layers if size else ():
            layers += [nn.Linear(size, width), ACTIVATIONS[nonlinearity]()]
            size = width
        self.mlp = nn.Sequential(*layers)
        images = [*([] if image is None else [image]), *(more_images or {}).values()]
        self.output_size = sum(encoder.output_size for encoder in images) + size
        if not self.output_size:
            raise ValueError("an observation has no entries, expected an image, numbers or categories")

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        return self.join(self.images(observation), observation)

    def images(self, observation: Mapping[str, Tensor]) -> list[Tensor]:
        """Features [N, …] of each image."""
        features = [] if self.image is None else [self.image(observation[IMAGE_KEY])]
        return features + [encoder(observation[name]) for name, encoder in self.more_images.items()]

    def join(self, images: list[Tensor], observation: Mapping[str, Tensor]) -> Tensor:
        """Features of images, with those of everything else behind them, [N, output_size]."""
        numbers = [observation[name].float() for name in self.extras]
        numbers += [one_hot(observation[name]) for name, one_hot in self.one_hot.items()]
        if numbers and len(self.mlp):
            numbers = [self.mlp(torch.cat(numbers, dim=1))]
        return torch.cat([*images, *numbers], dim=1)

    def image_encoders(self) -> list[nn.Module]:
        """The encoders of images."""
        return [*([] if self.image is None else [self.image]), *self.more_images.values()]
