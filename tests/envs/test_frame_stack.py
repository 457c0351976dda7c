"""Frame stacking: what is seen at each step, spaces, errors."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from srwm_agents.envs.frame_stack import FrameStack, make_frame_stack, stacked


class Counting(gymnasium.Env[Any, Any]):
    """Observations are of one array, which each step writes anew: the step's number."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any], value: Any) -> None:
        self.observation_space, self._value = space, value

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.count = 0
        return self._value(0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        return self._value(self.count), 1.0, False, False, {}


def frames_seen(env: FrameStack, steps: int) -> list[Any]:
    seen = [env.reset()[0]]
    seen += [env.step(0)[0] for _ in range(steps)]
    assert all(env.observation_space.contains(one) for one in seen)
    return seen


def test_the_last_observations_stand_side_by_side_oldest_first() -> None:
    reused = np.zeros(1, np.float32)

    def value(count: int) -> np.ndarray:
        reused[0] = count
        return reused

    env = FrameStack(Counting(spaces.Box(0, 9, (1,), np.float32), value), frames=3)
    expected = [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    np.testing.assert_array_equal(frames_seen(env, 3), expected)
    np.testing.assert_array_equal(frames_seen(env, 3), expected)  # nothing of the episode before is left


def test_images_are_joined_along_their_channels() -> None:
    for shape, whole in (((64, 48, 3), (64, 48, 6)), ((3, 64, 48), (6, 64, 48)), ((64, 48), (64, 48, 2))):
        space = spaces.Box(0, 255, shape, np.uint8)
        env = FrameStack(Counting(space, lambda count, shape=shape: np.full(shape, count, np.uint8)), frames=2)
        last = frames_seen(env, 5)[-1]
        assert last.shape == whole
        assert last.dtype == np.uint8
        channels = last if whole[0] == 6 else np.moveaxis(last, -1, 0)
        half = len(channels) // 2
        assert (channels[:half] == 4).all()
        assert (channels[half:] == 5).all()


def test_categories_bits_and_what_is_within_dicts_and_tuples() -> None:
    space = spaces.Dict(
        {
            "card": spaces.Discrete(9, start=1),
            "both": spaces.Tuple([spaces.MultiDiscrete([9, 8]), spaces.MultiBinary(2)]),
        }
    )

    def value(count: int) -> dict[str, Any]:
        return {"card": count + 1, "both": (np.array([count, 1]), np.array([count % 2, 1], np.int8))}

    last = frames_seen(FrameStack(Counting(space, value), frames=2), 3)[-1]
    np.testing.assert_array_equal(last["card"], [2, 3])
    np.testing.assert_array_equal(last["both"][0], [2, 1, 3, 1])
    np.testing.assert_array_equal(last["both"][1], [0, 1, 1, 1])


def test_bounds_are_those_of_each_observation() -> None:
    whole, _ = stacked(spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, np.inf]), dtype=np.float64), 2)
    assert isinstance(whole, spaces.Box)
    np.testing.assert_array_equal(whole.low, [-1, 0, -1, 0])
    np.testing.assert_array_equal(whole.high, [1, np.inf, 1, np.inf])
    assert whole.dtype == np.float64


@pytest.mark.usefixtures("registered")
def test_it_is_made_by_an_id() -> None:
    env = gymnasium.make("srwm/FrameStack-v0", env_id="CartPole-v1", frames=3, disable_env_checker=True)
    observation, _ = env.reset(seed=0)
    plain, _ = gymnasium.make("CartPole-v1").reset(seed=0)
    np.testing.assert_array_equal(observation, np.tile(plain, 3))
    steps = 0
    while True:  # the wrapped environment's own end and limit
        _, _, terminated, truncated, _ = env.step(steps % 2)
        steps += 1
        if terminated or truncated:
            break
    assert steps <= 500
    assert make_frame_stack("CartPole-v1", render_mode="rgb_array").render_mode == "rgb_array"


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="frames is 0, expected at least 1"):
        make_frame_stack("CartPole-v1", frames=0)
    with pytest.raises(ValueError, match=r"the observation space has Text\(.*, expected Box, Discrete, MultiBinary"):
        stacked(spaces.Text(4), 2)
