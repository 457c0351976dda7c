"""Any Gymnasium environment as a vector: the same numbers however it is stepped, and errors of one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError
from small_environments import ACTIONS, OBSERVATIONS

from srwm_agents.envs.flat import FlatObservations
from srwm_agents.envs.gymnasium_task import EnvironmentFailedError, GymnasiumTask, TaskError
from srwm_agents.envs.gymnasium_vector import GymnasiumVectorEnv, make_gymnasium

SMALL = "small_environments:test/Small-v0"
STEPS = 12
ADDED: dict[str, Any] = {"last_action": True, "last_reward": True, "episode_step": True}


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[GymnasiumVectorEnv] = []

    def make(*arguments: Any, **options: Any) -> GymnasiumVectorEnv:
        made.append(make_gymnasium(*arguments, **options))
        return made[-1]

    yield make
    for vector in made:
        vector.close()


def choices(vector: GymnasiumVectorEnv, steps: int = STEPS) -> list[np.ndarray]:
    """Actions, the same for every vector of this size and space."""
    rng, spec = np.random.default_rng(0), vector.actions
    shape = (steps, vector.num_envs, spec.count)
    chosen = rng.uniform(-1.5, 1.5, shape).astype(np.float32) if spec.continuous else rng.integers(0, spec.sizes, shape)
    return [spec.native(row) for row in chosen]


def played(vector: GymnasiumVectorEnv) -> list[Any]:
    """Everything that a vector gives, step by step."""
    everything: list[Any] = [vector.reset()[0]]
    for actions in choices(vector):
        observation, rewards, terminated, truncated, infos = vector.step(actions)
        everything.append((observation, rewards, terminated, truncated, infos))
    return everything


def one_by_one(kwargs: dict[str, Any], number: int, actions: list[np.ndarray]) -> Iterator[Any]:
    """The same with single environments, resets by hand: what a vector has to be equal to."""
    environments = [
        FlatObservations(gymnasium.make(SMALL, disable_env_checker=True, **kwargs), **ADDED) for _ in range(number)
    ]
    yield [environment.reset(seed=7 + i)[0] for i, environment in enumerate(environments)]
    for row in actions:
        results = []
        for environment, action in zip(environments, row, strict=True):
            observation, reward, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                observation = environment.reset()[0]
            results.append((observation, reward, terminated, truncated))
        yield results


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize(
    ("observations", "actions"), [*((o, "discrete") for o in OBSERVATIONS), ("vector", "multi"), ("dict", "box")]
)
def test_a_vector_is_its_environments(observations: str, actions: str, processes: int, make) -> None:
    kwargs = {"observations": observations, "actions": actions}
    vector = make(SMALL, 5, 7, kwargs=kwargs, processes=processes, **ADDED)
    steps = played(vector)
    reference = one_by_one(kwargs, 5, choices(vector))
    first = next(reference)
    for i in range(5):
        for name, entry in steps[0].items():
            np.testing.assert_array_equal(entry[i], first[i][name])
            assert vector.single_observation_space[name].contains(entry[i]), name  # type: ignore[index]
    returns = np.zeros(5)
    ends = 0
    for (observation, rewards, terminated, truncated, infos), results in zip(steps[1:], reference, strict=True):
        returns += rewards
        for i, (expected, reward, ended, late) in enumerate(results):
            assert (rewards[i], terminated[i], truncated[i]) == (pytest.approx(reward), ended, late)
            for name, entry in observation.items():
                np.testing.assert_allclose(entry[i], expected[name], atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(infos["episode_ended"], terminated | truncated)
        np.testing.assert_allclose(infos["episode_return"], returns, rtol=1e-6)
        returns[infos["episode_ended"]] = 0
        ends += infos["episode_ended"].sum()
    assert ends == 5 * 3  # after 3 steps, then 5, then 3


def test_the_last_action_and_reward_are_of_the_step_before(make) -> None:
    vector = make(SMALL, 2, 0, last_action=True, last_reward=True)
    observation, _ = vector.reset()
    assert not observation["last_action"].any()
    assert not observation["last_reward"].any()
    observation, rewards, *_ = vector.step([5, 7])
    np.testing.assert_array_equal(observation["last_action"], [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(observation["last_reward"], [[1], [1]])  # rewards of 5 and 7, clipped
    np.testing.assert_array_equal(rewards, [5, 7])
    vector.step([5, 5])
    observation, _, terminated, _, _ = vector.step([5, 5])
    assert terminated.all()
    assert not observation["last_action"].any()
    assert not observation["last_reward"].any()


def test_the_step_of_the_episode_is_given_as_sines_and_cosines_from_its_beginning_on(make) -> None:
    vector = make(SMALL, 2, 0, episode_step=True)
    seen = [vector.reset()[0]["episode_step"]]
    for actions in choices(vector):
        seen.append(vector.step(actions)[0]["episode_step"])
    steps = np.array([0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 0, 1])  # episodes of 3, 5, 3 steps
    angles = 2 * np.pi * steps[:, None] / [4, 8, 16, 32, 64, 128, 256, 512]
    for i in range(2):
        expected = np.concatenate([np.sin(angles), np.cos(angles)], 1)
        np.testing.assert_allclose(np.stack(seen)[:, i], expected, atol=1e-6)


def test_a_step_overwrites_nothing_that_was_given(make) -> None:
    vector = make(SMALL, 3, 0, kwargs={"observations": "image"})
    first, _ = vector.reset()
    kept = first["obs"].copy()
    vector.step(choices(vector)[0])
    np.testing.assert_array_equal(first["obs"], kept)


@pytest.mark.skipif(
    not gymnasium.__version__.startswith("0."),
    reason="gymnasium 1.x's vector of CartPole begins an episode a step later, and is not used",
)
def test_an_environments_own_vector_is_used(make) -> None:
    vector = make("CartPole-v1", 4, 3, processes=2)
    mine = played(vector)
    reference = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="custom")
    expected, _ = reference.reset(seed=3)
    np.testing.assert_array_equal(mine[0]["obs"], expected)
    for (observation, *_), actions in zip(mine[1:], choices(vector), strict=True):
        expected, *_ = reference.step(actions)
        np.testing.assert_array_equal(observation["obs"], expected.astype(np.float32))
    assert multiprocessing.active_children() == []


def test_positions_of_cartpole_alone(make) -> None:
    vector = make("srwm/CartPole-positions-v0", 3, 5)
    whole = make("CartPole-v1", 3, 5)
    for mine, theirs in zip(played(vector), played(whole), strict=True):
        mine, theirs = (step if isinstance(step, dict) else step[0] for step in (mine, theirs))
        np.testing.assert_array_equal(mine["obs"], theirs["obs"][:, [0, 2]])
    single, theirs = gymnasium.make("srwm/CartPole-positions-v0"), gymnasium.make("CartPole-v1")
    np.testing.assert_array_equal(single.reset(seed=1)[0], theirs.reset(seed=1)[0][[0, 2]])
    assert single.spec is not None
    assert single.spec.max_episode_steps == 500


def test_tensors_are_the_arrays(make) -> None:
    arrays = played(make(SMALL, 3, 1, kwargs={"observations": "tuple"}, last_action=True))
    tensors = played(make(SMALL, 3, 1, kwargs={"observations": "tuple"}, last_action=True, device="cpu"))
    for (array, rewards, *_), (tensor, same, *_) in zip(arrays[1:], tensors[1:], strict=True):
        for name, entry in array.items():
            assert isinstance(tensor[name], torch.Tensor)
            np.testing.assert_array_equal(tensor[name].numpy(), entry)
        np.testing.assert_array_equal(same.numpy(), rewards)


def test_a_seed_begins_anew(make) -> None:
    vector = make(SMALL, 3, 1)
    first, _ = vector.reset()
    again, _ = vector.reset(seed=1)
    other, _ = vector.reset()
    np.testing.assert_array_equal(first["obs"], again["obs"])
    assert (other["obs"] != first["obs"]).any()


def test_modules_of_the_current_folder_are_found(tmp_path, monkeypatch, make) -> None:
    (tmp_path / "mine_of_this_test.py").write_text(
        "import gymnasium\nfrom small_environments import Small\ngymnasium.register('Mine-v0', Small)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in sys.path if path not in ("", str(tmp_path))])
    vector = make("mine_of_this_test:Mine-v0", 2, 0, processes=1)
    assert vector.reset()[0]["obs"].shape == (2, 3)


@pytest.mark.parametrize(
    ("id", "kwargs", "message"),
    [
        ("CartPol-v1", {}, "no environment 'CartPol-v1': NameNotFound: .*CartPole"),
        ("no_such_module:X-v0", {}, "no environment 'no_such_module:X-v0': ModuleNotFoundError"),
        (SMALL, {"size": 3}, r'Small-v0 cannot be made with {"size": 3}: TypeError: .*unexpected keyword'),
        (SMALL, {"observations": "none"}, "Small-v0 cannot be made with .*: KeyError: 'none'"),
    ],
)
def test_environments_that_cannot_be_made_are_named(id: str, kwargs: dict, message: str, make) -> None:
    with pytest.raises(TaskError, match=message) as error:
        make(id, 2, kwargs=kwargs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("observation", "observation 'obs' has nan, expected finite numbers"),
        ("category", r"observation 'obs' is \d+, allowed: 0 to \d+, counted from the space's start"),
        ("reward", "a reward is inf, expected a finite number"),
    ],
)
def test_numbers_that_no_network_can_take_are_named(what: str, said: str, make) -> None:
    vector = make("small_environments:test/WrongNumbers-v0", 2, 0, kwargs={"what": what})
    vector.reset()
    with pytest.raises(EnvironmentFailedError, match=f"WrongNumbers-v0: {said}"):
        vector.step([5, 5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0, expected at least 1"),
        ({"processes": -1}, "processes is -1, expected at least 0"),
        ({"render_mode": "human"}, "render_mode is 'human', allowed: None, 'rgb_array'"),
        ({"render_mode": "rgb_array", "processes": 1}, "processes is 1, expected 0 with a render_mode"),
        ({"reuse_tensors": True}, "reuse_tensors is True, but device is None, expected a CUDA device"),
        ({"seed": -1}, "seed is -1, allowed: 0 to 2147483647"),
    ],
)
def test_wrong_arguments_are_named(options: dict, message: str, make) -> None:
    with pytest.raises(ValueError, match=message):
        make(SMALL, **{"num_envs": 2, **options})


def test_wrong_actions_and_a_closed_vector_are_named(make) -> None:
    vector = make(SMALL, 2, 0)
    vector.reset()
    with pytest.raises(ValueError, match="an action is 4, allowed: 5 to 7"):
        vector.step([4, 5])
    vector.close()
    with pytest.raises(ClosedEnvironmentError):
        vector.step([5, 5])


@pytest.mark.parametrize("processes", [0, 1])
def test_what_an_environment_raises_is_told_in_one_line(processes: int, make) -> None:
    vector = make(SMALL, 2, 0, kwargs={"fails_at": 2}, processes=processes)
    vector.reset()
    vector.step([5, 5])
    with pytest.raises(
        EnvironmentFailedError, match=r"Small-v0 raised RuntimeError: out of order \(.*line \d+\)"
    ) as error:
        vector.step([5, 5])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("processes", [0, 1])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FourValues", r"FourValues-v0: step\(\) returned 4 values, expected 5"),
        ("OtherShape", r"OtherShape-v0: observation 'obs' has shape \[1\], its space says \[\d\]"),
    ],
)
def test_what_is_wrong_with_an_environment_is_named(name: str, said: str, processes: int, make) -> None:
    vector = make(f"small_environments:test/{name}-v0", 2, 0, processes=processes)

    def play() -> None:
        vector.reset()
        vector.step([5, 5])

    with pytest.raises(EnvironmentFailedError, match=said):
        play()


def test_a_process_that_ends_is_told(make) -> None:
    vector = make(SMALL, 2, 0, kwargs={"fails_at": -11}, processes=1)
    vector.reset()
    with pytest.raises(EnvironmentFailedError, match=r"the process that stepped .*Small-v0 ended \(exit status 3\)"):
        vector.step([5, 5])


def test_a_killed_process_is_told_and_no_process_is_left(make) -> None:
    vector = make(SMALL, 4, 0, processes=2)
    vector.reset()
    processes = multiprocessing.active_children()
    assert len(processes) == 2
    os.kill(processes[0].pid or 0, signal.SIGTERM)  # left to whoever started them
    vector.step([5] * 4)
    os.kill(processes[0].pid or 0, signal.SIGKILL)
    processes[0].join()
    with pytest.raises(EnvironmentFailedError, match=r"ended \(killed by signal 9\)"):
        vector.step([5] * 4)
    vector.close()
    assert multiprocessing.active_children() == []


def test_processes_end_with_the_one_that_started_them(tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing, time\n"
        "from srwm_agents.envs.gymnasium_vector import make_gymnasium\n"
        "if __name__ == '__main__':\n"
        f"    vector = make_gymnasium('{SMALL}', 2, 0, processes=1)\n"
        "    vector.reset()\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(100)\n"
    )
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    started = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert started.stdout is not None
    worker = int(started.stdout.readline())
    started.kill()
    started.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the process is still there")


def test_pictures(make) -> None:
    vector = make(SMALL, 2, 0, render_mode="rgb_array")
    with pytest.raises(ValueError, match="reset"):
        vector.render()
    vector.reset()
    vector.step([5, 5])
    frames = vector.render()
    assert [frame.shape for frame in frames] == [(20, 30, 3)] * 2
    assert (frames[0] == 1).all()
    assert vector.metadata["render_fps"] == 20
    with pytest.raises(ValueError, match='render_mode="rgb_array"'):
        make(SMALL, 2, 0).render()


def test_a_task_knows_its_spaces() -> None:
    leaves, actions, space, metadata = GymnasiumTask(SMALL, {"observations": "tuple", "actions": "multi"}).described()
    assert [leaf.name for leaf in leaves] == ["obs/0", "obs/1", "obs/2"]
    assert actions.sizes == (2, 3)
    assert space == ACTIONS["multi"]
    assert metadata["render_fps"] == 20
