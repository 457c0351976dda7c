"""Recipes: named settings of a training run, as YAML files that build on a preset or on each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srwm_agents.recipes import parse_yaml

KEYS = {"base", "about", "settings"}


@dataclass(frozen=True)
class Recipe:
    """Settings that a run changes of its base."""

    name: str
    base: str
    """Another recipe of the same folder or, if there is none of that name, a preset of the training command."""
    about: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Resolved:
    """A recipe with those that it builds on: a preset, and all settings on top of it."""

    preset: str
    settings: dict[str, Any]


def read_yaml(file: Path) -> Any:
    """A YAML file's content, read as the package reads its recipes: plain data, 5e-4 is a number."""
    return parse_yaml(file.read_text())


def read_recipe(file: Path) -> Recipe:
    """Read one recipe file with the keys ``base``, ``about`` and ``settings``.

    Raises:
        ValueError: a key is unknown or missing.
    """
    content = read_yaml(file)
    if not isinstance(content, dict) or "base" not in content:
        raise ValueError(f"{file} has no key 'base'")
    if unknown := set(content) - KEYS:
        raise ValueError(f"{file} has the unknown key {sorted(unknown)[0]!r}, allowed: {', '.join(sorted(KEYS))}")
    return Recipe(file.stem, content["base"], content.get("about", ""), content.get("settings") or {})


def recipe_names(folder: Path) -> list[str]:
    """The recipes of a folder."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def resolve(name: str, folder: Path) -> Resolved:
    """Follow a recipe's bases down to the preset; later settings override earlier ones.

    Raises:
        ValueError: no recipe of that name is in ``folder``, or recipes build on each other in a circle.
    """
    if name not in recipe_names(folder):
        raise ValueError(f"unknown recipe {name!r}, allowed: {', '.join(recipe_names(folder))}")
    chain: list[Recipe] = []
    while (folder / f"{name}.yaml").is_file():
        if name in [recipe.name for recipe in chain]:
            raise ValueError(f"recipe {name!r} builds on itself")
        chain.append(read_recipe(folder / f"{name}.yaml"))
        name = chain[-1].base
    settings: dict[str, Any] = {}
    for recipe in reversed(chain):
        settings |= recipe.settings
    return Resolved(name, settings)
