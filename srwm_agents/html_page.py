"""One self-contained HTML file: sections with tables and pictures, for a laptop's and a phone's width, no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color: #1f2933; background: #fff; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
img, video { max-width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #d5dbe1; }
th { border-bottom-color: #1f2933; white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
p { max-width: 45rem; }
""".strip()


@dataclass(frozen=True)
class Section:
    """A heading, and HTML below it that :func:`paragraph`, :func:`table` and :func:`picture` made."""

    title: str
    parts: tuple[str, ...]


def page(title: str, sections: Sequence[Section], *, style: str = "", data: str = "", script: str = "") -> str:
    """The whole file's text; it refers to nothing outside of itself.

    Args:
        title: of the page.
        sections: from the top; one without a title has no heading.
        style: more CSS.
        data: JSON for the script, which finds it in the element "data"; without "<".
        script: JavaScript, run once the page is there.
    """
    body = "\n".join(
        "<section>\n" + "\n".join([*_heading(section), *section.parts]) + "\n</section>" for section in sections
    )
    if script:
        body += f'\n<script id="data" type="application/json">{data}</script>\n<script>\n{script}</script>'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>\n{_STYLE}\n{style}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _heading(section: Section) -> list[str]:
    return [f"<h2>{escape(section.title)}</h2>"] if section.title else []


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """A table of plain texts, which scrolls where the screen is narrower; ``numbers``: columns that align right."""
    classes = [' class="number"' if column in numbers else "" for column in columns]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(classes, columns, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{escape(text)}</td>" for kind, text in zip(classes, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def picture(png: bytes, alt: str, narrow: bytes | None = None) -> str:
    """A PNG within the file; ``narrow``: another one for screens of at most 700 pixels; ``alt``: what is on it."""
    source = "" if narrow is None else f'<source media="(max-width: 700px)" srcset="{_data(narrow)}">'
    return f'<picture>{source}<img src="{_data(png)}" alt="{escape(alt)}"></picture>'


def video(mp4: bytes) -> str:
    """A film within the file, which plays when it is asked to."""
    return f'<video controls loop muted playsinline src="{_data(mp4, "video/mp4")}"></video>'


def _data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
