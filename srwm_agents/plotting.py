"""The common style of all pictures: fonts from 9 points, colours for colour-blind readers, labels at the lines."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srwm_agents.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c8c8c")
"""Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow, which is too light for lines
on white; violet and grey follow where there are more than six lines."""
DIVERGING = ("#08406e", "#3f8ec6", "#a9d0ec", "#fafafa", "#f7c59a", "#e0761f", "#8a3d00")
"""From the lowest through 0 to the highest: blue and orange, which colour-blind readers can tell apart."""
INK, PALE = "#1f2933", "#8c96a0"
"""For text and axes, and for what is only context."""
FONT_SIZE = 9
DOTS_PER_INCH = 100
PAGE_INCHES = 7.5
"""The width up to which a page (GitHub's, the site's) shows a picture, and its fonts, in full size on a laptop."""
STYLE: dict[str, Any] = {
    "font.size": FONT_SIZE,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.grid": True,
    "grid.alpha": 0.3,
}


@contextmanager
def drawing(
    picture: Path, width: float, height: float, *, photographs: bool = False, placed: bool = False
) -> Iterator[Figure]:
    """A figure in the common style, which is written to a file when the block ends; not if the block raises.

    The figure is matplotlib's, not pyplot's: no window, and no figure that stays open. A PNG has at most 256 colours,
    which makes it a third as large.

    Args:
        picture: the file; its ending chooses the format. Its folder is made, and the file is replaced whole.
        width: in inches; up to ``PAGE_INCHES`` for a page.
        height: in inches.
        photographs: whether there are pictures on it, which need more than 256 colours.
        placed: whether the caller says where all axes are; else they are laid out.
    """
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    kind = picture.suffix.removeprefix(".") or "png"
    style: dict[Any, Any] = {**STYLE, "axes.prop_cycle": cycler(color=COLOURS)}
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout=None if placed else "constrained")
        yield figure
        content = _rendered(figure, kind, None if photographs else 256)
    picture.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(picture, content)


def short_number(value: float, _position: object = None) -> str:
    """1500000 -> 1.5M; as matplotlib calls the formatter of an axis."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def label_lines(axes: Axes) -> None:
    """Write each labelled line's label at its right end in its colour, in place of a legend.

    Labels of lines that end close to each other are moved apart. To be called when everything has been drawn.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [(float(line.get_xdata()[-1]), float(line.get_ydata()[-1])) for line in lines]  # type: ignore[index]
    axes.set_xlim(right=max(x for x, _ in ends))
    figure.draw_without_rendering()  # places the axes, so that heights on the page are known
    per_point = figure.dpi / 72
    heights = [float(axes.transData.transform(end)[1]) / per_point for end in ends]
    for i, height in enumerate(_spread(heights, 1.15 * FONT_SIZE)):
        axes.annotate(
            str(lines[i].get_label()),
            *(ends[i], (5, height - heights[i])),
            textcoords="offset points",
            color=lines[i].get_color(),
            va="center",
            annotation_clip=False,
        )


def _spread(heights: list[float], gap: float) -> list[float]:
    """Numbers as near to ``heights`` as can be, in the same order and at least ``gap`` apart."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    # Neighbours that are too close become one block around their mean; blocks that touch are joined.
    blocks: list[list[int]] = []
    middles: list[float] = []
    for i in order:
        blocks.append([i])
        middles.append(heights[i])
        while len(blocks) > 1 and middles[-1] - middles[-2] < gap * (len(blocks[-1]) + len(blocks[-2])) / 2:
            joined = blocks.pop(-2) + blocks.pop()
            del middles[-2:]
            blocks.append(joined)
            middles.append(sum(heights[j] for j in joined) / len(joined))
    placed = [0.0] * len(heights)
    for block, middle in zip(blocks, middles, strict=True):
        for position, i in enumerate(block):
            placed[i] = middle + gap * (position - (len(block) - 1) / 2)
    return placed


def _rendered(figure: Figure, kind: str, colours: int | None) -> bytes:
    """The figure as a file's content; ``colours``: at most so many in a PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH)
    if kind != "png" or colours is None:
        return buffer.getvalue()
    few_colours = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    few_colours.save(smaller, format="png", optimize=True)
    return smaller.getvalue()
