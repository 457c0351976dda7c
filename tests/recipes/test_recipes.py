"""Recipes: the shipped ones, those of a user's own, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from srwm_agents.recipes import RecipeError, load_recipe, load_recipes, parse_yaml, read_recipe, yaml_text


def test_training_presets_have_the_values_that_they_had_as_python() -> None:
    """But for V-trace's lambda, which had been written as the clip ``vtrace_c``."""
    before = json.loads((Path(__file__).parent / "training_presets.json").read_text())
    now = load_recipes("training")
    assert now.keys() - before.keys() == {"cartpole", "popgym", "small"}  # which came later
    assert now.keys() >= before.keys()
    for name, settings in before.items():
        if "vtrace_c" in settings:
            settings["vtrace_lambda"] = settings.pop("vtrace_c")
        assert now[name] == settings
        assert {key: type(value) for key, value in now[name].items()} == {k: type(v) for k, v in settings.items()}


def test_yaml_is_read_as_what_was_written() -> None:
    """A commit's name may look like a number of YAML 1.2's, and was read as infinity."""
    content = {
        "commit": "8e371959",
        "other": "1E5",
        "rate": 5e-4,
        "tiny": 1e-12,
        "number": 3,
        "text": "a: b",
        "no": None,
    }
    assert parse_yaml(yaml_text(content)) == content


def test_a_users_recipe_starts_from_a_shipped_one(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "about: mine\nbase: fast\nsettings:\n  learning_rate: 2e-4\n  adam_eps: 1E-8\n  rollout: 1_6\n  seed: null\n"
    )
    mine = read_recipe(tmp_path / "mine.yaml", "training")
    changed = {"learning_rate": 2e-4, "adam_eps": 1e-8, "rollout": 16, "seed": None}
    assert mine == load_recipe("training", "fast") | changed


def test_of_several_bases_later_ones_win(tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("base: [fast, paper]\nsettings: {gamma: .9}\n")
    fast, paper = load_recipe("training", "fast"), load_recipe("training", "paper")
    assert read_recipe(tmp_path / "mine.yaml", "training") == fast | paper | {"gamma": 0.9}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "mine.yaml, line 1 is no YAML: "),
        ("settings:\n  a: 1\n  a: 2\n", "mine.yaml, line 3 is no YAML: 'a' twice"),
        ("settings: {[1]: 2}\n", "mine.yaml, line 1 is no YAML: a key that is no name"),
        ("settings: !!python/object/apply:os.system [ls]", "is no YAML: could not determine a constructor"),
        ("- 1\n", "mine.yaml is no recipe: expected a mapping with base, about, settings"),
        ("setings: {}\n", "mine.yaml has the key 'setings', did you mean settings? allowed: base, about, settings"),
        ("settings: 3\n", "mine.yaml: settings is 3, expected a mapping from settings to values"),
        ("settings: {3: 4}\n", "mine.yaml: settings has 3, expected the name of a setting"),
        ("base: fsat\n", "mine.yaml: base 'fsat' is unknown, did you mean fast? allowed: "),
        ("base: 3\n", "mine.yaml: base is 3, expected the name of a recipe or a list of names"),
        ("base: [[]]\n", "mine.yaml: base [] is unknown, allowed: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        read_recipe(tmp_path / "mine.yaml", "training")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere.yaml cannot be read: No such file"):
        read_recipe(tmp_path / "nowhere.yaml", "training")
    (tmp_path / "latin.yaml").write_bytes("about: déjà\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="is no text in UTF-8"):
        read_recipe(tmp_path / "latin.yaml", "training")
    with pytest.raises(RecipeError, match="recipe 'fsat' is unknown, did you mean fast"):
        load_recipe("training", "fsat")


def test_a_circle_of_bases_is_named(tmp_path, monkeypatch) -> None:
    import srwm_agents.recipes as recipes

    (tmp_path / "training").mkdir()
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / "training" / f"{name}.yaml").write_text(f"base: {base}\n")
    monkeypatch.setattr(recipes, "_FOLDER", tmp_path)
    with pytest.raises(RecipeError, match="base 'a' is this recipe itself, or has it as a base"):
        load_recipe("training", "a")
