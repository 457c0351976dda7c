"""The common style of pictures."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.text import Text
from PIL import Image

from srwm_agents import plotting


def contrast(colour: str) -> float:
    """WCAG's contrast ratio to white."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.05 + sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))


def test_a_picture_has_the_style_and_leaves_none_behind(tmp_path) -> None:
    before = dict(mpl.rcParams)
    with plotting.drawing(tmp_path / "new" / "a.png", 4, 3) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label="line")
        axes.set(title="title", xlabel="x")
        axes.legend()
    assert dict(mpl.rcParams) == before
    sizes = [float(text.get_fontsize()) for text in figure.findobj(Text) if isinstance(text, Text)]
    assert min(sizes) >= plotting.FONT_SIZE
    assert plotting.FONT_SIZE >= 9
    assert axes.get_lines()[0].get_color() == plotting.COLOURS[0]
    assert not axes.spines["top"].get_visible()
    image = Image.open(tmp_path / "new" / "a.png")
    assert image.size == (400, 300)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_picture_that_fails_leaves_the_old_one(tmp_path) -> None:
    picture = tmp_path / "a.svg"
    with plotting.drawing(picture, 2, 2) as figure:
        figure.subplots()
    old = picture.read_bytes()
    assert b"<svg" in old
    with pytest.raises(ZeroDivisionError), plotting.drawing(picture, 2, 2):
        _ = 1 / 0
    assert picture.read_bytes() == old


def test_labels_stand_at_their_lines_and_apart(tmp_path) -> None:
    with plotting.drawing(tmp_path / "a.png", 4, 3) as figure:
        axes = figure.subplots()
        for i, end in enumerate((1.0, 0.5, 0.51, 0.0)):
            axes.plot([0, 1], [0, end], label=f"line {i}")
        axes.plot([0, 1], [0.2, 0.2])  # has no label
        plotting.label_lines(axes)
        figure.savefig(io.BytesIO())
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert [text.get_text() for text in axes.texts] == ["line 0", "line 1", "line 2", "line 3"]
    assert [text.get_color() for text in axes.texts] == list(plotting.COLOURS[:4])
    assert all(above.y0 >= below.y1 - 1 for below, above in pairwise(boxes))


def test_pictures_of_pages_are_shown_in_full_size() -> None:
    for picture in (Path(__file__).parents[1] / "docs" / "pictures").rglob("*.png"):
        assert Image.open(picture).width <= plotting.PAGE_INCHES * plotting.DOTS_PER_INCH, picture


def test_colours_differ_and_can_be_seen_on_white() -> None:
    assert len(set(plotting.COLOURS)) == len(plotting.COLOURS) >= 8
    assert all(contrast(colour) > 2 for colour in plotting.COLOURS)
    assert contrast(plotting.INK) > 10
