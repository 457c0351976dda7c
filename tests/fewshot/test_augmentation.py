"""Augmentation: where pixels go, how colours change, nothing by default."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.fewshot.augmentation import ASPECT, Augmentation


def ramp(number: int, size: int = 40) -> torch.Tensor:
    """Channel 0 rises by 5 a column, channel 1 by 5 a row, channel 2 is constant."""
    line = 5 * torch.arange(size)
    planes = torch.stack([line.expand(size, size), line[:, None].expand(size, size), torch.full((size, size), 77)])
    return planes.to(torch.uint8).expand(number, -1, -1, -1)


def test_nothing_is_done_by_default(generator) -> None:
    images = ramp(3)
    assert Augmentation()(images, generator) is images


def test_a_whole_crop_changes_nothing(generator, monkeypatch) -> None:
    monkeypatch.setattr("srwm_agents.fewshot.augmentation.ASPECT", 1.0)
    images = ramp(8)
    assert torch.equal(Augmentation(crop=1 - 1e-7)(images, generator), images)


def test_crops_have_the_areas_and_aspects_they_should(generator) -> None:
    images = ramp(500)
    cropped = Augmentation(crop=0.4, flip=True)(images, generator)
    assert cropped.dtype == torch.uint8
    assert (cropped[:, 2] == 77).all()
    assert (cropped[:, 0] == cropped[:, 0, :1]).all()  # columns stay columns: nothing is turned
    across, down = (cropped[:, 0, 0].float(), cropped[:, 1, :, 0].float())
    # Between the centres of the outermost pixels; bytes are rounded, hence the tolerance.
    width, height = ((line[:, -1] - line[:, 0]) / 5 / 39 for line in (across, down))
    mirrored = (width < 0).float().mean()
    assert 0.4 < mirrored < 0.6  # a binomial's deviation is 0.022
    assert (height > 0).all()
    area, aspect = width.abs() * height, width.abs() / height
    assert 0.39 < area.min() < 0.45
    assert 0.9 < area.max() < 1.01
    assert 1 / ASPECT - 0.02 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < ASPECT + 0.02
    # Crops lie inside the image, and reach its edges.
    left = torch.minimum(across[:, 0], across[:, -1]) / 5
    assert -0.01 <= left.min() < 1
    assert left.max() > 8


def test_colours_change_brightness_contrast_and_saturation(generator) -> None:
    images = torch.full((300, 3, 8, 8), 100, dtype=torch.uint8)
    flat = Augmentation(colour=0.3)(images, generator)[:, 0, 0, 0].float()  # grey without contrast: brightness alone
    assert 69 <= flat.min() < 74
    assert 126 < flat.max() <= 131
    images[:, 0] = 160
    coloured = Augmentation(colour=0.3)(images, generator).float()
    assert (coloured[:, 1] == coloured[:, 2]).all()
    gaps = (coloured[:, 0] - coloured[:, 1])[:, 0, 0]
    assert gaps.min() < 0.55 * 60  # all three factors at work: one alone gives 0.7 at least
    assert gaps.max() > 1.45 * 60
    grey = Augmentation(colour=0.3)(ramp(2)[:, :1], generator)
    assert grey.shape == (2, 1, 40, 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"shift": -1}, "shift is -1"), ({"crop": 0.0}, "crop is 0.0, expected 0 < crop"), ({"colour": 2}, "colour is 2")],
)
def test_wrong_settings_are_named(settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)
