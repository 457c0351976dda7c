"""The documentation site's navigation, and its links, without what builds it (``make docs`` does that)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srwm_agents.recipes import parse_yaml

ROOT = Path(__file__).parents[2]
SITE = parse_yaml((ROOT / "mkdocs.yml").read_text())
MADE = ("index.md", "reference/", "repository/")
"""Pages that scripts/site/hooks.py makes."""


def pages(nav: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages(part)


def test_the_navigation_has_every_page_of_docs_once() -> None:
    named = list(pages(SITE["nav"]))
    own = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert len(named) == len(set(named))
    assert {page for page in named if not page.startswith(MADE)} == own


def test_pages_that_are_made_of_files_have_these() -> None:
    for page in pages(SITE["nav"]):
        if page.startswith("repository/"):
            assert (ROOT / page.removeprefix("repository/")).is_file(), page


def test_the_navigation_has_every_page_of_the_api() -> None:
    hooks = (ROOT / "scripts/site/hooks.py").read_text()
    body = hooks[hooks.index("API = {") : hooks.index('"""Pages of the API reference')]
    named = {Path(page).stem for page in pages(SITE["nav"]) if page.startswith("reference/api/")} - {"index"}
    assert {line.split('"')[1] for line in body.splitlines() if line.startswith('    "')} == named


def test_the_site_is_strict_and_needs_no_network() -> None:
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False
    assert set(SITE["validation"].values()) == {"warn"}


@pytest.mark.parametrize(
    "name", ["train", "eval", "runs", "compare", "inspect", "fewshot train", "fewshot eval", "export"]
)
def test_the_commands_reference_has_every_flag(name: str, command_sections) -> None:
    parser, text = command_sections[name]
    for action in parser._actions:
        if action.dest not in ("help", "==SUPPRESS=="):
            flag = action.option_strings[0] if action.option_strings else action.metavar
            assert f"| `{flag}" in text, flag


@pytest.fixture(scope="module")
def command_sections() -> dict[str, tuple[Any, str]]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("site_commands", ROOT / "scripts/site/commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: (parser, "\n".join(module.section(name, parser))) for name, parser in module.parsers()}
