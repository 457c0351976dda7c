"""What the scripts that make pages share: tables between marks, and comparing instead of writing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"

Texts = dict[Path, str]
"""What each file should contain."""


def fill(page: Path, script: str, tables: Mapping[str, Iterable[str] | str]) -> str:
    """A page's text with each table between its two marks.

    Args:
        page: a page with the marks ``<!-- NAME: made by SCRIPT -->`` and ``<!-- end of NAME -->``.
        script: the module that makes the tables, as ``python -m`` takes it.
        tables: text, or lines of it, by name; a table whose marks are not on the page is left out.
    """
    return filled(page.read_text(), script, tables)


def filled(text: str, script: str, tables: Mapping[str, Iterable[str] | str]) -> str:
    """The text of a page with each table between its two marks; arguments as :func:`fill`."""
    for name, lines in tables.items():
        begin, end = f"<!-- {name}: made by {script} -->", f"<!-- end of {name} -->"
        if begin not in text:
            continue
        table = lines if isinstance(lines, str) else "\n".join(lines)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table.rstrip()}\n\n{end}{rest.split(end)[1]}"
    return text


def run(about: str | None, texts: Callable[[], Texts], draw: Callable[[], None]) -> int:
    """The command line of a script that makes pages: writes texts and pictures or, with ``--check``, compares texts.

    Returns:
        The exit status: 1 if ``--check`` finds a file that is not what the raw numbers give.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page would change")
    args = parser.parse_args()
    made = texts()
    if args.check:
        different = [file for file, text in made.items() if not file.is_file() or file.read_text() != text]
        for file in different:
            print(f"{file.relative_to(ROOT)} is not what the raw numbers give: run this without --check")
        return 1 if different else 0
    for file, text in made.items():
        file.write_text(text)
    draw()
    return 0
