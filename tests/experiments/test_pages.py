"""Pages, tables and model cards are what the committed raw numbers give."""

from __future__ import annotations

import runpy
import sys

import pytest

from experiments import pages

# Half a minute on a quiet core: some 120 evaluations with bootstrap intervals.
SLOW = pytest.param("procgen.make_page", marks=[pytest.mark.slow, pytest.mark.timeout(900)])
PAGES = ("fast.make_page", "fewshot.make_page", "introspective.make_page", "performance.make_page", SLOW)
SCRIPTS = (
    *PAGES,
    "procgen.six_games.table",
    "procgen.learnable.table",
    "procgen.critic.table",
    "adaptation.table",
    "popgym.table",
    "reversal.table",
    "memory_page",
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_page_is_what_the_raw_numbers_give(name: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(pages.ROOT)
    monkeypatch.setattr(sys, "argv", [name, "--check"])
    with pytest.raises(SystemExit) as ended:  # here, because a process of its own would import PyTorch and pandas anew
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr()


def test_check_finds_a_changed_number_and_writes_nothing(tmp_path, monkeypatch, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n<!-- scores: made by a.b -->\n\n| .3 |\n\n<!-- end of scores -->\n\nText.\n")
    before = page.read_text()
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_page", "--check"])
    drawn = []
    same, other = ({page: pages.fill(page, "a.b", {"scores": table})} for table in ("| .3 |\n", ["| .4 |", ""]))
    assert pages.run("", lambda: same, lambda: drawn.append(1)) == 0
    assert pages.run("", lambda: other, lambda: drawn.append(1)) == 1
    assert "page.md" in capsys.readouterr().out
    assert page.read_text() == before
    monkeypatch.setattr(sys, "argv", ["make_page"])
    assert pages.run("", lambda: other, lambda: drawn.append(1)) == 0
    assert page.read_text() == before.replace(".3", ".4")
    assert drawn == [1]


def test_every_table_of_a_page_has_both_marks() -> None:
    for page in pages.DOCS.rglob("*.md"):
        text = page.read_text()
        begun = [line.removeprefix("<!-- ").partition(":")[0] for line in text.splitlines() if ": made by " in line]
        for name in begun:
            assert f"<!-- end of {name} -->" in text, (page, name)
