"""Glyphs: a procedurally generated data set of handwriting-like classes, without a download.

A class is two to four curved strokes. A drawer is a style: slant, size, rotation, pen thickness, and the size of random
displacements. Each image is a class in the style of one drawer, with its own displacements, so that images of a class
differ as handwriting does. Class numbers are seeds: train, val and test use disjoint ranges, also for their drawers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from srwm_agents.fewshot.data.cache import ImageSet, Track

NAME = "glyphs"
CLASSES = {"train": 1000, "val": 200, "test": 200}
DRAWERS = 20
"""Images a class, each by another drawer."""
STROKES = (2, 4)
"""Fewest and most strokes of a glyph."""

_FIRST = {"train": 0, "val": 10_000_000, "test": 20_000_000}
_POINTS = 16  # along each stroke
_CHUNK = 50  # classes drawn at once


def make_glyphs(
    split: str, image_size: int = 28, num_classes: int | None = None, drawers: int = DRAWERS, track: Track | None = None
) -> ImageSet:
    """Generate the glyphs of one split: bright strokes on black, uint8 [classes · drawers, 1, size, size].

    Deterministic; a larger ``num_classes`` only appends classes. It defaults to ``CLASSES[split]``.
    """
    number = CLASSES[split] if num_classes is None else num_classes
    styles = _styles(drawers, _FIRST[split])
    starts: Iterable[int] = range(0, number, _CHUNK)
    if track is not None:
        starts = track(starts, math.ceil(number / _CHUNK), f"drawing {NAME} {split}")
    images = torch.cat(
        [_draw(range(_FIRST[split] + a, _FIRST[split] + min(a + _CHUNK, number)), styles, image_size) for a in starts]
    )
    pixels = images.numpy()
    scaled = pixels.astype(np.float32) / 255
    return ImageSet(
        NAME,
        split,
        pixels,
        tuple(f"glyph{i:05d}" for i in range(number)),
        (drawers,) * number,
        (float(scaled.mean()),),
        (float(scaled.std()),),
    )


def _styles(drawers: int, seed: int) -> dict[str, Tensor]:
    """Each drawer's linear map [R, 2, 2], shift [R, 2], pen radius [R] and displacement [R]; unit: the image's side."""
    g = torch.Generator().manual_seed(seed + 7)

    def normal(std: float) -> Tensor:
        return std * torch.randn(drawers, generator=g)

    turn, slant = normal(0.12), normal(0.2)
    width, height = 0.9 * torch.exp(normal(0.12)), 0.9 * torch.exp(normal(0.12))
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], -1).view(-1, 2, 2)
    shape = torch.stack([width, slant, torch.zeros(drawers), height], -1).view(-1, 2, 2)
    return {
        "map": rotation @ shape,
        "shift": torch.stack([normal(0.03), normal(0.03)], -1),
        "pen": 0.022 + 0.02 * torch.rand(drawers, generator=g),
        "tremble": 0.015 + 0.02 * torch.rand(drawers, generator=g),
    }


def _draw(classes: range, styles: dict[str, Tensor], image_size: int) -> Tensor:
    """Render classes in all styles, uint8 [len(classes) · R, 1, size, size]."""
    points, used = zip(*(_glyph(seed, len(styles["pen"]), styles["tremble"]) for seed in classes), strict=True)
    lines = torch.stack(points)  # [K, R, strokes, P, 2], centred on 0, about 1 wide
    lines = torch.einsum("rij,krspj->krspi", styles["map"], lines) + styles["shift"][:, None, None] + 0.5
    pixels = (torch.arange(image_size) + 0.5) / image_size
    nearest = torch.full((*lines.shape[:2], image_size, image_size), torch.inf)
    for s in range(STROKES[1]):
        for p in range(_POINTS - 1):
            a, b = lines[:, :, s, p, :, None, None], lines[:, :, s, p + 1, :, None, None]
            squared = _squared_distance(pixels[None, :], pixels[:, None], a, b)
            squared[~torch.stack([u[s] for u in used])] = torch.inf
            torch.minimum(nearest, squared, out=nearest)
    # Anti-aliasing: a stroke's edge is one pixel wide.
    ink = (styles["pen"][:, None, None] - nearest.sqrt()) * image_size + 0.5
    return (ink.clamp(0, 1) * 255).round().to(torch.uint8).flatten(0, 1)[:, None]


def _glyph(seed: int, drawers: int, tremble: Tensor) -> tuple[Tensor, Tensor]:
    """Points along each stroke, by drawer [R, strokes, P, 2], and which strokes exist, bool [strokes]."""
    g = torch.Generator().manual_seed(seed)
    most = STROKES[1]
    number = int(torch.randint(STROKES[0], most + 1, (1,), generator=g))
    # Cubic Bézier curves: uniform ends, inner control points displaced from the line between them.
    ends = torch.rand(most, 2, 2, generator=g) * 0.8 - 0.4
    weight = torch.tensor([[1.0, 0.0], [2 / 3, 1 / 3], [1 / 3, 2 / 3], [0.0, 1.0]])
    control = weight @ ends
    control[:, 1:3] += 0.25 * torch.randn(most, 2, 2, generator=g)
    # Half of the strokes begin where the one before ended.
    for s in range(1, most):
        if torch.rand(1, generator=g) < 0.5:
            control[s] += control[s - 1, 3] - control[s, 0]
    control -= control[:number].mean((0, 1))
    versions = control + tremble[:, None, None, None] * torch.randn(drawers, most, 4, 2, generator=g)
    t = torch.linspace(0, 1, _POINTS)
    bernstein = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], -1)
    return bernstein @ versions, torch.arange(most) < number


def _squared_distance(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared distances of pixels (x, y) to the line segments from a to b [..., 2, 1, 1]."""
    dx, dy = b[..., 0, :, :] - a[..., 0, :, :], b[..., 1, :, :] - a[..., 1, :, :]
    px, py = x - a[..., 0, :, :], y - a[..., 1, :, :]
    along = ((px * dx + py * dy) / (dx**2 + dy**2).clamp_min(1e-12)).clamp(0, 1)
    return (px - along * dx) ** 2 + (py - along * dy) ** 2
