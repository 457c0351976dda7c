"""From gymnasium's spaces to entries and actions."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.entries import Entry, SpaceError
from srwm_agents.spaces.gymnasium_spaces import actions_of, leaves_of

IMAGE = spaces.Box(0, 255, (40, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("space", "entries"),
    [
        (spaces.Box(-1, 1, (4,), np.float32), {"obs": Entry("vector", (4,))}),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), {"obs": Entry("vector", (147,))}),
        (IMAGE, {"obs": Entry("image", (3, 40, 48))}),
        (spaces.Box(0, 255, (3, 64, 64), np.uint8), {"obs": Entry("image", (3, 64, 64))}),
        (spaces.Box(0, 255, (84, 84), np.uint8), {"obs": Entry("image", (1, 84, 84))}),
        (spaces.Discrete(5, start=2), {"obs": Entry("categories", (1,), (5,))}),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), {"obs": Entry("categories", (4,), (2, 3, 4, 5))}),
        (spaces.MultiBinary(6), {"obs": Entry("vector", (6,))}),
        (
            spaces.Tuple([spaces.Discrete(2), spaces.Dict({"a.b": IMAGE, "c": spaces.Box(0, 1, ())})]),
            {
                "obs/0": Entry("categories", (1,), (2,)),
                "obs/1/a_b": Entry("image", (3, 40, 48)),
                "obs/1/c": Entry("vector", (1,)),
            },
        ),
    ],
)
def test_entries(space: spaces.Space, entries: dict[str, Entry]) -> None:
    leaves = leaves_of(space)
    assert {leaf.name: leaf.entry for leaf in leaves} == entries
    for leaf in leaves:  # a batch of observations, as gymnasium's vectors give them
        samples = [leaf.value(space.sample()) for _ in range(3)]
        array = leaf.convert(np.asarray(samples)).astype(leaf.dtype)
        assert array.shape == (3, *leaf.entry.shape)
        assert all(leaf.space.contains(row) for row in array)


def test_images_are_turned_and_categories_count_from_0() -> None:
    image = np.arange(40 * 48 * 3, dtype=np.uint8).reshape(40, 48, 3)
    np.testing.assert_array_equal(leaves_of(IMAGE)[0].arrays(image[None])[0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(leaves_of(spaces.Discrete(5, start=2))[0].arrays(np.array([2, 6])), [[0], [4]])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            spaces.Text(5),
            r"the observation space is Text.*, allowed: Box, Discrete, MultiDiscrete, MultiBinary, and Dict",
        ),
        (spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}), "the observation space's 'a' is Sequence"),
        (spaces.Tuple([]), "is empty"),
        (
            spaces.Dict({"a.b": spaces.Discrete(2), "a_b": spaces.Discrete(2)}),
            "two entries that would be named 'obs/a_b'",
        ),
        (spaces.Discrete(200_000), "has 200,000 values, allowed: 100,000"),
    ],
)
def test_other_observations_are_named(space: spaces.Space, message: str) -> None:
    with pytest.raises(SpaceError, match=message) as error:
        leaves_of(space)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "spec"),
    [
        (spaces.Discrete(4), ActionSpec.discrete(4)),
        (spaces.Discrete(4, start=-1), ActionSpec("discrete", (4,), (-1,))),
        (spaces.MultiDiscrete([3, 2]), ActionSpec("multi_discrete", (3, 2), (), (2,))),
        (spaces.MultiBinary(2), ActionSpec("multi_discrete", (2, 2), (), (2,))),
        (spaces.Box(-2, 2, (1,), np.float32), ActionSpec("box", shape=(1,), low=(-2.0,), high=(2.0,))),
        (spaces.Box(-np.inf, 2, (1,), np.float32), ActionSpec("box", shape=(1,), low=(None,), high=(None,))),
    ],
)
def test_actions(space: spaces.Space, spec: ActionSpec) -> None:
    assert actions_of(space) == spec
    rng = np.random.default_rng(0)
    chosen = rng.normal(size=(20, spec.count)).astype(np.float32)
    if not spec.continuous:
        chosen = rng.integers(0, spec.sizes, (20, spec.count))
    if not isinstance(space, spaces.Box) or np.isfinite(space.low).all():
        assert all(space.contains(np.asarray(action, space.dtype)) for action in spec.native(chosen))


@pytest.mark.parametrize(
    "space",
    [spaces.Dict({"a": spaces.Discrete(2)}), spaces.Box(0, 255, (2,), np.uint8), spaces.Tuple([spaces.Discrete(2)])],
)
def test_other_actions_are_named(space: spaces.Space) -> None:
    with pytest.raises(
        SpaceError, match=r"the action space is .*, allowed: Discrete, MultiDiscrete, MultiBinary, or a Box"
    ):
        actions_of(space)
