"""Hooks of the documentation site (``mkdocs.yml``): pages that are made, and links that hold on GitHub and on the site.

Pages link to files of the repository as GitHub wants it: relative, as in ``../experiments/README.md``. On the site
every file that a page links to is a page of its own under ``repository/`` (a Markdown file as it is, text as a block of
code, a folder as a list, anything else to download), so that nothing has to be online. This file alone knows of it.
"""

from __future__ import annotations

import os
import posixpath
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[2]
FOLDER = "repository"
"""Where the repository's files lie on the site."""
MOST_BYTES = 150_000
"""The size of a text up to which it is shown; a larger one is downloaded."""
LINK = re.compile(r"(!?\[[^\]]*\])\(([^)\s]+)\)")
FENCE = re.compile(r"^ *(?:```|~~~)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".toml": "toml", ".sh": "bash"}
TEXTS = {*LANGUAGES, ".csv", ".txt", ".log", ".c", ".h", ".cff", ""}
OPS = (
    "srwm",
    "delta",
    "recurrent",
    "gated_delta",
    "linear_scan",
    "mlstm",
    "conv3x3",
    "max_pool",
    "norm_pool",
    "checks",
)
API = {
    "package": ("The package", ("srwm_agents.modules", "srwm_agents.policy")),
    # Not srwm_agents.ops itself: its functions have the names of the packages that they are in.
    "ops": ("Ops", tuple(f"srwm_agents.ops.{name}" for name in OPS)),
    "layers": ("Layers", ("srwm_agents.layers",)),
    "cores": ("Cores", ("srwm_agents.cores",)),
    "encoders": ("Encoders", ("srwm_agents.encoders",)),
    "agent": ("Saved agents", ("srwm_agents.agent", "srwm_agents.portable", "srwm_agents.averaging")),
    "learning": ("Learning", ("srwm_agents.learning",)),
    "envs": ("Environments", ("srwm_agents.envs", "srwm_agents.envs.gymnasium_vector", "srwm_agents.envs.flat")),
    "evaluation": ("Evaluation", ("srwm_agents.evaluation",)),
    "fewshot": ("Few-shot classifiers", ("srwm_agents.fewshot",)),
    "introspective": ("The introspective net", ("srwm_agents.introspective",)),
    "sb3": ("Stable-Baselines3", ("srwm_agents.integrations.sb3",)),
    "torchrl": ("TorchRL", ("srwm_agents.integrations.torchrl",)),
    "sample_factory": ("Sample Factory", ("srwm_agents.integrations.sample_factory",)),
    "export": ("Export", ("srwm_agents.integrations.export",)),
    "hub": ("Hugging Face Hub", ("srwm_agents.integrations.hub",)),
}
"""Pages of the API reference: title, and the modules whose public names they have."""


def on_config(config: Any) -> Any:
    """Anchors as GitHub makes them, so that links to headings hold on both."""
    config["mdx_configs"].setdefault("toc", {})["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made, and each file of the repository that a page links to, and so on from these."""

    def add(uri: str, content: str) -> None:
        files.append(File.generated(config, uri, content=content))

    add("index.md", (ROOT / "README.md").read_text())
    add("reference/commands.md", _commands())
    add("reference/api/index.md", _api_index())
    for name, (title, modules) in API.items():
        add(f"reference/api/{name}.md", _api_page(title, modules))
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "experiments/README.md", *(ROOT / "docs").rglob("*.md")]
    waiting, found = list(pages), {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        if not page.is_relative_to(ROOT / "docs") and page not in found:
            found.add(page)
            _add_repository_file(files, config, page)
        if page.suffix == ".md":
            targets = (_target(page, link) for link in _links(page.read_text()))
            waiting += [target for target in targets if target and target not in found and not _in_docs(target)]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links to files of the repository into links to their pages."""
    uri = page.file.src_uri
    if uri.startswith(f"{FOLDER}/") and Path(uri).name not in ("CHANGELOG.md", "README.md"):
        page.meta["search"] = {"exclude": True}  # numbers and code would crowd out what explains them
    source = _source(uri)
    return markdown if source is None else _rewritten(markdown, source, uri)


def _commands() -> str:
    """The reference of the command line, made in the environment that has what training needs."""
    python = os.environ.get("SRWM_PYTHON", str(ROOT / ".venv/bin/python"))
    script = [python, "scripts/site/commands.py"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(script, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def _api_index() -> str:
    lines = ["# API", "", "Public modules, from their docstrings. Names that begin with an underscore may change.", ""]
    lines += ["| page | modules |", "|---|---|"]
    for name, (title, modules) in API.items():
        lines.append(f"| [{title}]({name}.md) | {', '.join(f'`{module}`' for module in modules)} |")
    return "\n".join(lines) + "\n"


def _api_page(title: str, modules: Sequence[str]) -> str:
    if len(modules) == 1:
        return f"# {title}\n\n`{modules[0]}`\n\n::: {modules[0]}\n"
    sections = (f"## {module}\n\n::: {module}\n    options:\n      heading_level: 3\n" for module in modules)
    return f"# {title}\n\n" + "\n".join(sections)


def _in_docs(file: Path) -> bool:
    return file.is_relative_to(ROOT / "docs")


def _links(markdown: str) -> Iterator[str]:
    """The targets of a text's links, without those in blocks of code."""
    for prose in _parts(markdown)[::2]:
        yield from (match[2] for match in LINK.finditer(prose))


def _parts(markdown: str) -> list[str]:
    """A text cut at its fences: prose and code in turn, beginning with prose, which may be empty."""
    parts, fenced = [""], False
    for line in markdown.splitlines(keepends=True):
        fence = FENCE.match(line) is not None
        if fence and not fenced:
            parts.append("")
        parts[-1] += line
        if fence and fenced:
            parts.append("")
        fenced ^= fence
    return parts


def _target(page: Path, link: str) -> Path | None:
    """The file of the repository that a link on ``page`` leads to; None for one elsewhere, or on the page."""
    path = link.partition("#")[0]
    if not path or ":" in path:
        return None
    return Path(os.path.normpath(page.parent / path))


def _uri(file: Path) -> str:
    """Where a file of the repository lies on the site, as the name of its page's source."""
    if file == ROOT / "README.md":
        return "index.md"
    if _in_docs(file):
        return file.relative_to(ROOT / "docs").as_posix()
    path = f"{FOLDER}/{file.relative_to(ROOT).as_posix()}"
    if file.is_dir():
        return f"{path}/folder.md"
    return f"{path}.md" if _is_text(file) else path


def _is_text(file: Path) -> bool:
    return file.suffix in TEXTS and file.stat().st_size <= MOST_BYTES


def _add_repository_file(files: Files, config: Any, file: Path) -> None:
    name = file.relative_to(ROOT).as_posix()
    if file.is_dir():
        entries = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in _tracked(file))
        content = f"# {name}/\n\nA folder of the repository.\n\n```text\n" + "\n".join(entries) + "\n```\n"
        files.append(File.generated(config, _uri(file), content=content))
    elif file.suffix == ".md":
        files.append(File.generated(config, _uri(file), content=file.read_text()))
    elif _is_text(file):
        fence = f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text().rstrip()}\n````\n"
        files.append(File.generated(config, _uri(file), content=f"# {file.name}\n\n`{name}`\n\n{fence}"))
    else:
        files.append(File.generated(config, _uri(file), abs_src_path=str(file)))


def _tracked(folder: Path) -> list[Path]:
    """A folder's entries without what tools leave there."""
    return [entry for entry in folder.iterdir() if not entry.name.startswith(("__", "."))]


def _source(uri: str) -> Path | None:
    """The file of the repository that a page of the site is made of; None for one that is made otherwise."""
    if uri == "index.md":
        return ROOT / "README.md"
    if uri.startswith(f"{FOLDER}/"):
        file = ROOT / uri.removeprefix(f"{FOLDER}/")
        return file if file.is_file() else None
    file = ROOT / "docs" / uri
    return file if file.is_file() else None


def _rewritten(markdown: str, source: Path, uri: str) -> str:
    """A page's text with each link to a file of the repository as the site needs it."""

    def replace(match: re.Match[str]) -> str:
        target = _target(source, match[2])
        if target is None:
            return match[0]
        there = posixpath.relpath(_uri(target), posixpath.dirname(uri) or ".")
        link = f"{match[1]}({there}{''.join(match[2].partition('#')[1:])})"
        # On a phone a picture is small: it leads to itself.
        return f"[{link}]({there})" if match[1].startswith("!") else link

    parts = _parts(markdown)
    parts[::2] = [LINK.sub(replace, prose) for prose in parts[::2]]
    return "".join(parts)
