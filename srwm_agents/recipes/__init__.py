"""Named settings as YAML files, ``<kind>/<name>.yaml``: what ``--preset`` takes; shipped ones and users' own.

A recipe is a mapping with the keys ``about`` (a sentence for readers), ``base`` (the name of a recipe that it starts
from, or a list of names of which later ones win) and ``settings`` (setting: value, which win over the bases'). Recipes
whose name begins with an underscore are bases only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, Any]

_FOLDER = Path(__file__).parent
_KEYS = ("base", "about", "settings")


class RecipeError(ValueError):
    """A recipe that cannot be read; the message names the file, what is wrong and what is allowed, in one line."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with two changes: 5e-4 is a number, as in YAML 1.2, and no key may come twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(problem="a key that is no name", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"{key.value!r} twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what :class:`_Loader` would read as a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def parse_yaml(text: str) -> Any:
    """Plain values from YAML text, numbers as in YAML 1.2.

    Raises:
        yaml.YAMLError: it is no YAML, asks for Python objects, or has a key twice.
    """
    return yaml.load(text, _Loader)  # a safe loader


def yaml_text(content: Any) -> str:
    """YAML text that :func:`parse_yaml` reads as ``content``, also where a string looks like a number, as a commit's
    name 8e371959 does."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def recipe_names(kind: str) -> list[str]:
    """The names of the shipped recipes of a kind, without those that are bases only."""
    return sorted(file.stem for file in (_FOLDER / kind).glob("*.yaml") if not file.stem.startswith("_"))


def load_recipes(kind: str) -> dict[str, Settings]:
    """The settings of every shipped recipe of a kind, by name, with those of their bases.

    Args:
        kind: a folder of this package: "training".

    Raises:
        RecipeError: a recipe that cannot be read.
    """
    return {name: load_recipe(kind, name) for name in recipe_names(kind)}


def load_recipe(kind: str, name: str) -> Settings:
    """The settings of one shipped recipe, which may be one that is a base only.

    Raises:
        RecipeError: there is no recipe of that name, or it cannot be read.
    """
    return _settings(_file(kind, name, f"recipe {name!r}"), kind, ())


def read_recipe(path: Path | str, kind: str) -> Settings:
    """The settings of a recipe of the user's own, whose bases are shipped recipes of ``kind``.

    Raises:
        RecipeError: the file is not there, or is no recipe.
    """
    return _settings(Path(path), kind, ())


def _settings(file: Path, kind: str, above: tuple[Path, ...]) -> Settings:
    if file in above:
        raise RecipeError(f"{file}: base {file.stem!r} is this recipe itself, or has it as a base")
    recipe = _read(file)
    bases = recipe.get("base") or []
    settings: Settings = {}
    for base in [bases] if isinstance(bases, str) else bases:
        settings |= _settings(_file(kind, base, f"{file}: base {base!r}"), kind, (*above, file))
    return settings | (recipe.get("settings") or {})


def _read(file: Path) -> dict[str, Any]:
    try:
        recipe = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file} is no text in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{file}{where} is no YAML: {problem}") from error
    if not isinstance(recipe, dict):
        raise RecipeError(f"{file} is no recipe: expected a mapping with {', '.join(_KEYS)}")
    for key in recipe:
        if key not in _KEYS:
            raise RecipeError(f"{file} has the key {key!r}, {_meant(key, _KEYS)}allowed: {', '.join(_KEYS)}")
    bases, settings = recipe.get("base"), recipe.get("settings")
    if not (bases is None or isinstance(bases, str | list)):
        raise RecipeError(f"{file}: base is {bases!r}, expected the name of a recipe or a list of names")
    if settings is not None and not isinstance(settings, dict):
        raise RecipeError(f"{file}: settings is {settings!r}, expected a mapping from settings to values")
    for name in settings or ():
        if not isinstance(name, str):
            raise RecipeError(f"{file}: settings has {name!r}, expected the name of a setting")
    return recipe


def _file(kind: str, name: Any, what: str) -> Path:
    """The file of a shipped recipe."""
    names = sorted(file.stem for file in (_FOLDER / kind).glob("*.yaml"))
    if name not in names:
        raise RecipeError(f"{what} is unknown, {_meant(name, names)}allowed: {', '.join(names)}")
    return _FOLDER / kind / f"{name}.yaml"


def _meant(name: Any, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean {close[0]}? " if close else ""
