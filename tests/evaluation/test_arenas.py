"""What an environment is called in tables and folders."""

from __future__ import annotations

from srwm_agents.evaluation.arenas import GymnasiumArena


def test_arguments_of_an_environment_are_named() -> None:
    assert GymnasiumArena("my_module:Mine-v0").about == "my_module:Mine-v0"
    arena = GymnasiumArena("my_module:Mine-v0", {"size": 5})
    assert arena.about == 'my_module:Mine-v0 {"size": 5}'
    assert arena.folder_name == "my_module_Mine-v0_size_5"
