"""Experiments of earlier versions: their ``config.json`` mixes what was asked for with what was derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srwm_agents.integrations.sample_factory.request import RECIPES, Request, saved_settings
from srwm_agents.recipes import load_recipe, recipe_names

_ALWAYS_DERIVED = ("rnn_size", "rnn_type", "rnn_num_layers", "vector_size")
_DERIVED_UNLESS_GIVEN = ("device", "env_threads", "actor_worker_gpus", "normalize_input_keys")
_NOT_OF_THE_EXPERIMENT_UNLESS_GIVEN = ("heartbeat_reporting_interval",)
"""What presets say of how a run is watched, which was too strict for slow machines."""
_ON_GPU_UNLESS_GIVEN = ("compile", "cuda_graphs", "in_process")


def request_of_flat(saved: Mapping[str, Any], defaults: Mapping[str, Any]) -> Request:
    """What was asked for, as far as a flat configuration tells.

    Flags of the first start stand in its "cli_args". Flags of later starts only changed values, so that a derived value
    may be one that was given later; where that cannot be told, it is derived anew.

    Args:
        saved: the flat configuration.
        defaults: the flags' own, without any preset's: for settings that it is older than.
    """
    first: Mapping[str, Any] = saved.get("cli_args") or {}
    preset = saved.get("preset")
    asked = {**saved_settings(defaults), **(load_recipe(RECIPES, preset) if preset in recipe_names(RECIPES) else {})}
    """Values from before anything was derived: the preset's, else the flags' defaults."""
    given = set(saved_settings(first)) - {"preset"}
    settings = {name: value for name, value in saved_settings(saved).items() if name not in _ALWAYS_DERIVED}

    def drop(name: str) -> None:
        if name in asked:
            settings[name] = asked[name]

    for name in (*_DERIVED_UNLESS_GIVEN, *_NOT_OF_THE_EXPERIMENT_UNLESS_GIVEN):
        if name not in first:
            drop(name)
    for name in _ON_GPU_UNLESS_GIVEN:  # on a CPU they were turned off unless they had been given
        if name not in first and saved.get("device") != "gpu":
            if saved.get(name):
                given.add(name)
            else:
                drop(name)
    settings["serial_mode"] = first.get("serial_mode", asked["serial_mode"])
    if saved.get("reward_treatment", "clip") != "clip":
        drop("reward_clip")
    if saved.get("recurrence") == saved.get("rollout"):
        drop("recurrence")
    settings["num_envs_per_worker"] *= saved.get("vector_size", 1)  # where it had become the number of vectors
    return Request({**saved_settings(defaults), **settings}, frozenset(given))
