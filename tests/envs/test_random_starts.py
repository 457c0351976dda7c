"""Random actions at the beginning of episodes: their number, their games, and their mark in the observation."""

from __future__ import annotations

import numpy as np
import pytest

from srwm_agents.envs import make_procgen
from srwm_agents.envs.random_starts import RandomStarts


def test_each_episode_begins_with_as_many_random_actions_as_drawn() -> None:
    longest = np.array([0, 10] * 500)
    starts = RandomStarts(longest, seed=1)
    policy = np.full(1000, 99)
    numbers = np.zeros(1000, int)
    for _ in range(11):
        exploring = starts.exploring
        taken = starts.replace(policy)
        assert ((taken == 99) == ~exploring).all()
        assert ((taken >= 0) & (taken < 15))[exploring].all()
        numbers += exploring
    assert not starts.exploring.any()
    assert not numbers[::2].any()
    assert np.unique(numbers[1::2]).tolist() == list(range(11))
    begun = np.arange(1000) < 500
    starts.restart(begun)
    assert starts.exploring[1:500:2].mean() > 0.8
    assert not starts.exploring[500:].any()


def test_random_actions_last_four_steps_on_average() -> None:
    starts = RandomStarts(np.full(2000, 10_000), seed=1)
    taken = np.stack([starts.replace(np.zeros(2000, int)) for _ in range(40)])[10:]
    assert np.bincount(taken.ravel(), minlength=15).min() > 0.8 * taken.size / 15
    assert np.mean(taken[1:] == taken[:-1]) == pytest.approx(0.75 + 0.25 / 15, abs=0.01)


def test_observations_mark_random_steps_and_hold_the_actions_taken() -> None:
    def play(seed: int):
        env = make_procgen("maze,starpilot", 8, "easy", 5, seed=seed, num_threads=0, last_action=True,
                           random_starts={"maze": 6})  # fmt: skip
        observation, _ = env.reset()
        assert env.observation_space.contains(observation)
        exploring, actions, images = [observation["exploring"][:, 0]], [], []
        for _ in range(8):
            observation, _, terminated, _, _ = env.step([4] * 8)
            assert not terminated.any()
            exploring.append(observation["exploring"][:, 0])
            actions.append(observation["last_action"].argmax(1))
            images.append(observation["obs"])
        env.close()
        return np.stack(exploring), np.stack(actions), np.stack(images)

    exploring, actions, images = play(3)
    assert not exploring[:, 1::2].any()
    assert exploring[0, ::2].any()
    assert not exploring[6:].any()
    assert (actions[exploring[:-1] == 0] == 4).all()
    assert (actions[exploring[:-1] == 1] != 4).any()
    for one, other in zip((exploring, actions, images), play(3), strict=True):
        assert (one == other).all()
    assert (play(4)[1] != actions).any()


@pytest.mark.parametrize(
    ("random_starts", "message"),
    [({"leaper": 3}, "random_starts names 'leaper', but the games are: maze"),
     ({"maze": -1}, "random_starts has -1 for maze, expected a whole number from 0 to 10000"),
     ({"maze": 2.5}, "random_starts has 2.5 for maze")],
)  # fmt: skip
def test_errors_name_the_value(random_starts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_procgen("maze", 2, random_starts=random_starts)
