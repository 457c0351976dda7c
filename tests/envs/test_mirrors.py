"""Mirror images of levels: what is seen and what is done are mirrored alike, in some games, anew in each episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srwm_agents.envs import make_procgen
from srwm_agents.envs.mirrors import MIRRORS, Mirrors

GAMES = ["bigfish", "maze", "plunder", "starpilot"]
RIGHT, LEFT, UP, DOWN, RIGHT_UP, LEFT_DOWN = 7, 1, 5, 3, 8, 0
DIRECTIONS = {RIGHT: (0, 1), LEFT: (0, -1), UP: (-1, 0), DOWN: (1, 0), RIGHT_UP: (0, 1), LEFT_DOWN: (0, -1)}
"""Rows and columns by which an action moves the agent of a maze."""


def steps(image: np.ndarray) -> np.ndarray:
    """[N, 3, 64, 64] differences -> [N, 2], the mean row and column of the pixels that changed; NaN where none did."""
    changed = image.any(1)
    number = changed.sum((1, 2))
    rows, columns = (changed.sum(axis) @ np.arange(64) for axis in (2, 1))
    with np.errstate(invalid="ignore"):
        return np.stack([rows / number, columns / number], axis=1)


def test_an_action_leads_where_it_seems_to() -> None:
    """In a maze, where nothing but the agent moves: two steps, and how far what changed has moved. Of diagonal actions
    the horizontal part counts, in all mirror images as in the game itself."""
    number = 128
    env = make_procgen("maze", number, "easy", 0, seed=4, mirror=True)
    before = env.reset()[0]["obs"]
    assert env._mirrors is not None
    generator = np.random.default_rng(1)
    for action, direction in DIRECTIONS.items():
        for _ in range(20):
            before = env.step(generator.integers(9, size=number))[0]["obs"]
        images, changes, stayed = env._mirrors.images.copy(), [], np.ones(number, bool)
        for _ in range(2):
            observation, _, terminated, _, _ = env.step([action] * number)
            changes.append(steps(observation["obs"].astype(int) - before))
            before, stayed = observation["obs"], stayed & ~terminated
        moved = stayed & np.isfinite(changes).all((0, 2))
        assert set(images[moved]) == set(range(8))
        found = (changes[1] - changes[0])[moved]
        assert (found @ np.array(direction) > 2).all()
        assert (np.abs(found @ np.array(direction[::-1])) < 1).all()
    env.close()


def test_an_episode_is_the_one_of_mirrored_actions_seen_in_a_mirror() -> None:
    env = make_procgen(GAMES, 32, "easy", 5, seed=1, mirror=True, last_action=True, random_starts={"maze": 5})
    plain = make_procgen(GAMES, 32, "easy", 5, seed=1, last_action=True)
    seen, raw = env.reset()[0], plain.reset()[0]
    generator = np.random.default_rng(1)
    drawn, mirrors = [], env._mirrors
    assert mirrors is not None
    for _ in range(150):
        drawn.append(mirrors.images.copy())
        frames = mirrors.mirrored(raw["obs"].transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(seen["obs"], frames.transpose(0, 3, 1, 2))
        actions = generator.integers(15, size=32)
        images = mirrors.images.copy()
        seen, rewards, ended, _, _ = env.step(actions)
        exploring = env._taken != actions
        assert not exploring[np.arange(32) % 4 != 1].any()
        np.testing.assert_array_equal(seen["last_action"].argmax(1)[~ended], env._taken[~ended])
        raw, raw_rewards, raw_ended, _, _ = plain.step(mirrors._actions[images, env._taken])
        np.testing.assert_array_equal(rewards, raw_rewards)
        np.testing.assert_array_equal(ended, raw_ended)
    env.close()
    plain.close()
    for number, game in enumerate(GAMES):
        images = set(np.stack(drawn)[:, number :: len(GAMES)].flat)
        assert images <= set(MIRRORS.get(game, (0,)))
        assert (len(images) > 1) == (game in MIRRORS)
    assert np.ptp(drawn, axis=0).any()  # an episode began in another image than the one before


def test_each_episode_draws_its_own() -> None:
    mirrors = Mirrors(["maze", "leaper", "heist"], np.arange(3000) % 3, seed=1)
    first = mirrors.images.copy()
    assert np.bincount(first[::3], minlength=8).min() > 90
    assert np.bincount(first[1::3]).tolist() == pytest.approx([500, 500], abs=70)
    assert not first[2::3].any()
    begun = np.arange(3000) < 1500
    mirrors.restart(begun)
    assert (mirrors.images[~begun] == first[~begun]).all()
    assert (mirrors.images[:1500:3] != first[:1500:3]).mean() == pytest.approx(7 / 8, abs=0.06)


def devices(*marks: pytest.MarkDecorator) -> list:
    return ["cpu", *(pytest.param("cuda", marks=mark) for mark in marks)]


@pytest.mark.parametrize("device", devices(pytest.mark.gpu))
def test_tensors_are_the_same_as_arrays(device: str) -> None:
    make = {"games": GAMES, "num_envs": 16, "distribution_mode": "easy", "seed": 3, "mirror": True}
    arrays, tensors = make_procgen(**make), make_procgen(**make, device=device, reuse_tensors=device == "cuda")
    expected, found = arrays.reset()[0], tensors.reset()[0]
    for _ in range(60):
        np.testing.assert_array_equal(found["obs"].cpu().numpy(), expected["obs"])
        actions = np.full(16, RIGHT)
        expected, found = arrays.step(actions)[0], tensors.step(actions)[0]
    arrays.close()
    tensors.close()


@pytest.mark.parametrize("image", range(8))
def test_frames_on_a_device_are_those_of_numpy(image: int) -> None:
    mirrors = Mirrors(["maze"], np.zeros(4, int), seed=1)
    mirrors.images[:] = image, 0, image, 3
    frames = np.random.default_rng(image).integers(256, size=(4, 64, 64, 3)).astype(np.uint8)
    expected = mirrors.mirrored(frames)
    for _ in range(2):
        found = mirrors.mirrored_on_device(torch.from_numpy(frames), torch.from_numpy(mirrors.images))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_games_without_mirror_images_are_refused() -> None:
    with pytest.raises(ValueError, match="mirror is True, but games are plunder, coinrun; expected one of bigfish"):
        make_procgen("plunder,coinrun", 2, mirror=True)
