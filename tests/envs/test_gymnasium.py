"""``gymnasium.make`` and ``gymnasium.make_vec``: our names are registered, and make what the package makes."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.envs.registration
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from srwm_agents.envs import GAMES
from srwm_agents.envs import registration as srwm_registration

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("registered")


def test_the_installed_plug_in_registers_without_importing_torch(tmp_path, gymnasium_1, run_program) -> None:
    """A program that does not import this package gets an environment from gymnasium.make, and PyTorch only then.

    gymnasium 1.x loads no plug-ins: there, the name says which package to import.
    """
    metadata = "import setuptools; setuptools.setup()"
    subprocess.run(
        [sys.executable, "-c", metadata, "-q", "egg_info", "--egg-base", tmp_path],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    module = "srwm_agents:" if gymnasium_1 else ""
    code = (
        "import gymnasium, sys\n"
        "assert 'torch' not in sys.modules\n"
        f"env = gymnasium.make('{module}srwm/Procgen-maze-memory-v0', num_levels=500)\n"
        "print(env.reset(seed=1)[0]['obs'].shape)"
    )
    assert run_program(code, tmp_path) == ("(3, 64, 64)", "")


@pytest.mark.parametrize("imports", ["srwm_agents, gymnasium", "gymnasium, srwm_agents", "gymnasium"])
def test_an_import_of_the_package_registers_once_in_any_order(imports: str, run_program) -> None:
    code = (
        f"import {imports}, sys\n"
        "gymnasium.spec('srwm/Procgen-v0') if 'srwm_agents' in sys.modules else None\n"
        "gymnasium.make_vec('srwm_agents:srwm/Procgen-maze-easy-v0', 1, vectorization_mode='wrong')"
    )
    stdout, stderr = run_program(code)
    assert stdout == ""
    assert "nvalid vectorization mode: " in stderr.splitlines()[-1]  # so the name was found
    code = f"import {imports}\nassert not {{'torch', 'procgen', 'gym'}} & set(__import__('sys').modules)"
    assert run_program(code) == ("", "")


def test_the_package_itself_does_not_import_gymnasium(run_program) -> None:
    code = "import srwm_agents, sys; assert not {'gymnasium', 'numpy', 'torch'} & set(sys.modules)"
    assert run_program(code) == ("", "")


@pytest.mark.parametrize(("missing", "error"), [("procgen", "SimulatorError"), ("gymnasium", "MissingPackageError")])
def test_a_missing_package_is_an_error_that_names_the_extra(missing: str, error: str, run_program) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "import srwm_agents.envs\n"
        "try: srwm_agents.envs.make_procgen('maze', 1)\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')"
    )
    stdout, stderr = run_program(code)
    assert stdout == f"{error}: {missing} is not installed; install with: pip install 'srwm-agents[procgen]'"
    assert stderr == ""


def test_every_game_and_mode_is_registered() -> None:
    names = {name for name in gymnasium.envs.registration.registry if name.startswith("srwm/")}
    expected = {f"srwm/Procgen-{game.name}-{mode}-v0" for game in GAMES.values() for mode in game.modes}
    stack = "srwm/FrameStack-v0"  # of single environments, with no vector form of its own
    assert names == expected | {"srwm/Procgen-v0", "srwm/CartPole-positions-v0", stack}
    assert len(expected) == 50
    for name in names - {stack}:
        spec = gymnasium.spec(name)
        gymnasium.envs.registration.EnvSpec.from_json(spec.to_json())
        assert isinstance(spec.vector_entry_point, str)
        gymnasium.envs.registration.load_env_creator(spec.vector_entry_point)


def test_an_environment_passes_gymnasiums_own_check() -> None:
    env: Any = gymnasium.make(
        "srwm/Procgen-starpilot-easy-v0", num_levels=10, last_action=True, render_mode="rgb_array"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on spaces: images are channels-first here
        check_env(env.unwrapped)
    env.reset()
    assert env.render().shape == (512, 512, 3)
    env.close()


def test_one_environment_plays_what_the_vector_plays(make_vec) -> None:
    env = gymnasium.make("srwm/Procgen-starpilot-easy-v0", num_levels=10).unwrapped
    vector = make_vec("srwm/Procgen-starpilot-easy-v0", 1, num_levels=10)
    observation, _ = env.reset(seed=5)
    expected, _ = vector.reset(seed=5)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(300):
        np.testing.assert_array_equal(observation["obs"], expected["obs"][0])
        np.testing.assert_array_equal(observation["last_reward"], expected["last_reward"][0])
        action = int(rng.integers(15))
        observation, reward, terminated, _, info = env.step(action)
        expected_before = {name: entry[0] for name, entry in expected.items()}
        expected, rewards, ends, _, infos = vector.step([action])
        assert (reward, terminated, info["level_seed"]) == (rewards[0], ends[0], infos["level_seed"][0])
        if terminated:
            ended += 1
            final = {**expected_before, "last_reward": np.clip(rewards[:1], -1, 1)}
            assert all((observation[name] == final[name]).all() for name in final)
            observation, _ = env.reset()  # which is the vector's own new episode, not one level later
    assert ended > 0
    env.close()
    vector.close()


def test_reset_in_the_middle_of_an_episode_begins_another() -> None:
    env = gymnasium.make("srwm/Procgen-maze-easy-v0")
    first, _ = env.reset(seed=1)
    env.step(4)
    second, _ = env.reset()
    assert (first["obs"] != second["obs"]).any()
    large, _ = env.reset(seed=2**31 + 1)  # as Stable-Baselines3 and gymnasium's vectors draw them
    np.testing.assert_array_equal(large["obs"], first["obs"])
    env.close()


def test_many_games_in_one_vector(make_vec) -> None:
    env: Any = make_vec("srwm/Procgen-v0", 4, games="bigfish,maze", num_levels=200, num_threads=0)
    assert env.reset(seed=1)[0]["obs"].shape == (4, 3, 64, 64)
    assert env.games == ["bigfish", "maze"]
    env.close()
    env = gymnasium.make_vec("srwm/Procgen-maze-memory-v0", num_envs=2, vectorization_mode="sync", num_levels=5)
    assert env.reset(seed=1)[0]["obs"].shape == (2, 3, 64, 64)
    env.close()


def test_errors_name_the_value(make_vec) -> None:
    with pytest.raises(gymnasium.error.NameNotFound, match="Did you mean: `Procgen-bigfish-easy`"):
        gymnasium.make("srwm/Procgen-bigfish-memory-v0")
    with pytest.raises(ValueError, match=r"no games named, expected vector_kwargs="):
        make_vec("srwm/Procgen-v0", 2)
    with pytest.raises(ValueError, match=r"max_episode_steps is 5, allowed: None"):
        srwm_registration.make_vector(2, max_episode_steps=5, game="maze")
    with pytest.raises(ValueError, match=r"device is cpu, allowed: None"):
        gymnasium.make("srwm/Procgen-maze-easy-v0", device="cpu")
    with pytest.raises(ValueError, match="num_levels is -1"):
        gymnasium.make("srwm/Procgen-bigfish-easy-v0", num_levels=-1)
    env = gymnasium.make("srwm/Procgen-bigfish-easy-v0", disable_env_checker=True)
    env.reset()
    with pytest.raises(ValueError, match="an action is 15, allowed: 0 to 14"):
        env.step(15)
    with pytest.raises(AttributeError, match="no attribute 'vector'"):
        _ = srwm_registration.vector
