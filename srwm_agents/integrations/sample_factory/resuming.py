"""Going on with an experiment: its saved request, and the flags of this command line over it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srwm_agents.cores.config import core_setting_names
from srwm_agents.envs.added_entries import ADDED
from srwm_agents.integrations.sample_factory.earlier import request_of_flat
from srwm_agents.integrations.sample_factory.request import (
    COMMAND_LINE_ONLY,
    RECIPES,
    ConfigError,
    Request,
    core_of,
    preset_settings,
    saved_settings,
)
from srwm_agents.integrations.sample_factory.suites import suite_of
from srwm_agents.recipes import recipe_names

NOT_OF_THE_NETWORK = ("rollout_length", "backend")
"""Core settings of which one is ``--rollout``, and one says how to compute, not what."""

ARCHITECTURE = (
    *("env", "env_kwargs"),
    *("core", *core_setting_names(exclude=NOT_OF_THE_NETWORK, fixed=True), "games"),
    *ADDED,
    *(
        "encoder_conv_architecture",
        "encoder_conv_mlp_layers",
        "encoder_mlp_layers",
        "nonlinearity",
        "decoder_mlp_layers",
        "normalize_input",
    ),
    *("popart", "reward_treatment", "critic"),
)
"""Settings that cannot change when an experiment is resumed: what the network is, and what its values are of."""


def read_request(folder: Path, defaults: Mapping[str, Any]) -> Request | None:
    """The request of the experiment in ``folder``; None if there is no experiment.

    Args:
        folder: the experiment's.
        defaults: the flags' own, without any preset's: for settings that the saved request is older than.

    Raises:
        ConfigError: there are checkpoints, but no request that can be read.
    """
    file = folder / "config.json"
    if not file.is_file():
        if list(folder.glob("checkpoint_p*/checkpoint_*.pth")):
            raise ConfigError(f"{folder} has checkpoints, but its config.json is missing: restore it to resume")
        return None
    try:
        saved = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{file} is no JSON ({error}): restore it to resume") from error
    if not isinstance(saved, dict):
        raise ConfigError(f"{file} is no JSON object: restore it to resume")
    if "request" not in saved:
        return request_of_flat(saved, defaults)
    request, given = saved["request"], saved.get("given")
    if not isinstance(request, dict) or not isinstance(given, list):
        raise ConfigError(f"{file} has no 'request' with settings and 'given' with flags: restore it to resume")
    return Request({**saved_settings(defaults), **saved_settings(request)}, frozenset(given))


def resume(saved: Request, now: Request, experiment: str) -> Request:
    """A saved request with the flags that are given now.

    Raises:
        ConfigError: these ask for another preset, or for another architecture.
    """
    _check_preset(saved, now, experiment)
    given = saved.given
    if "serial_mode" in now.given and now["serial_mode"]:
        given -= {"in_process"}  # asked for earlier, and not both are possible
    together = Request({**saved.settings, **{name: now[name] for name in now.given}}, given | now.given)
    before, after = _architecture(saved), _architecture(together)
    for name in ARCHITECTURE:
        if after[name] != before[name]:
            raise ConfigError(
                f"--{name} is {after[name]!r}, but experiment {experiment!r} was begun with {before[name]!r}; "
                "use another --experiment, or --restart_behavior=restart"
            )
    return together


def _architecture(request: Request) -> dict[str, Any]:
    architecture = {name: request[name] for name in ARCHITECTURE}
    return architecture | {"core": core_of(request), "games": ",".join(suite_of(request).tasks(request))}


def _check_preset(saved: Request, now: Request, experiment: str) -> None:
    """The saved request has the settings of its own preset; those of another would have no effect."""
    preset, begun = now["preset"], saved.settings.get("preset")
    shipped = recipe_names(RECIPES)
    if preset is None or (preset == begun and preset in shipped):
        return
    go_on = "leave --preset out to go on, or use another --experiment"
    if preset in shipped or begun is None or begun in shipped:
        begun_with = "without one" if begun is None else f"with {begun!r}"
        raise ConfigError(f"--preset is {preset!r}, but experiment {experiment!r} was begun {begun_with}: {go_on}")
    # Two files, which may be one, moved or changed: what counts is what stands in it.
    for name in preset_settings(preset):
        if name not in (*COMMAND_LINE_ONLY, *saved.given, *now.given) and saved[name] != now[name]:
            raise ConfigError(
                f"{name} is {now[name]!r} in --preset={preset}, but experiment {experiment!r} was begun with "
                f"{saved[name]!r}: give --{name} to change it; {go_on}"
            )
