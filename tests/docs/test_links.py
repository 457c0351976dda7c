"""Links, anchors, and paths in backticks hold in every page; so do paths of pages in code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    ".venv",
    ".venv-gymnasium1",
    ".venv-docs",
    ".browser",
    ".git",
    "train_dir",
    "build",
    "dist",
    "node_modules",
    "shared",
}
FOLDERS = (
    "",
    "docs",
    "srwm_agents",
    "experiments",
    "experiments/procgen",
    "srwm_agents/integrations",
    "srwm_agents/integrations/sample_factory",
)
"""Where a path in backticks may begin, beside the page's own folder."""
PAGES = sorted(page for page in ROOT.rglob("*.md") if not ELSEWHERE & set(page.relative_to(ROOT).parts))
NAMES = {file.name for folder in ("srwm_agents", "envs", "tests", "experiments") for file in (ROOT / folder).rglob("*")}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|yaml|json|csv|png))`")
MADE = re.compile(
    r"train_dir/|(?:omniglot-py|mini-imagenet|cifar-fs|fc100)/|evaluation/|data/|agent/|agent_\w+/|checkpoint|\.\./\.\.$|curves\.csv|(?:curves_of_groups|scores|table|improvement|settings)\.csv|comparison\.html|curves(?:_narrow)?\.png|(?:config|results|settings|summary|trace)\.json"
    r"|inspection\.(?:html|mp4|png|parquet|csv)|agents/procgen/evaluation/|config\.yaml|trace\.png|eval_|learning_curves?\.png|\.summary/|srwm/Procgen"
)
"""What commands write, not what is in the repository."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.relative_to(ROOT)}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{page.relative_to(ROOT)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_in_backticks_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it names what was, too
    for path in PATH.findall(page.read_text()):
        if MADE.match(path) or re.search(r"\b[A-Z]{2,}\b", path):
            continue  # a name in capitals stands for one of the reader's
        begins = [page.parent, *(ROOT / folder for folder in FOLDERS)]
        found = any((begin / path).exists() for begin in begins) or path in NAMES
        assert found, f"{page.relative_to(ROOT)}: {path}"


def test_tests_that_a_page_names_exist() -> None:
    code = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    for page in PAGES:
        for name in re.findall(r"`(test_\w+)…?`", page.read_text()) if page.name != "CHANGELOG.md" else ():
            assert re.search(rf"^ *def {name}\w*\(", code, re.M), f"{page.relative_to(ROOT)}: {name}"


def test_paths_of_pages_and_results_in_code_exist() -> None:
    files = [file for ending in ("py", "yaml", "toml") for file in ROOT.rglob(f"*.{ending}")]
    for file in files:
        if ELSEWHERE & set(file.relative_to(ROOT).parts) or file == Path(__file__):
            continue
        for path in re.findall(r"\b((?:docs|experiments)/[\w./-]*\w)", file.read_text()):
            if re.search(r"[A-Z]{2,}", path) or f"--json {path}" in file.read_text():
                continue  # where a command of the reader's writes
            assert (ROOT / path).exists(), f"{file.relative_to(ROOT)}: {path}"
