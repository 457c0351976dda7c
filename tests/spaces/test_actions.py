"""Actions: what a policy chooses, what an environment gets of it, and what the network sees of it afterwards."""

from __future__ import annotations

import json

import numpy as np
import pytest

from srwm_agents.spaces.actions import ActionSpec, check_choice

MULTI = ActionSpec("multi_discrete", (3, 2, 4), (1, 0, -2), (3,))
BOX = ActionSpec("box", shape=(2, 2), low=(-2.0, 0.0, None, 5.0), high=(2.0, 1.0, None, 7.0))


@pytest.mark.parametrize("spec", [ActionSpec.discrete(5), ActionSpec("discrete", (5,), (3,)), MULTI, BOX])
def test_json_there_and_back(spec: ActionSpec) -> None:
    assert ActionSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_sizes_of_heads_and_codes() -> None:
    assert (MULTI.count, MULTI.parameters, MULTI.width) == (3, 9, 9)
    assert (BOX.count, BOX.parameters, BOX.width) == (4, 8, 4)
    assert (ActionSpec.discrete(5).count, ActionSpec.discrete(5).parameters) == (1, 5)


def test_whole_numbers_begin_where_the_environments_do() -> None:
    chosen = np.array([[0, 0, 0], [2, 1, 3]])
    native = MULTI.native(chosen)
    np.testing.assert_array_equal(native, [[1, 0, -2], [3, 1, 1]])
    code = MULTI.encoded(native)
    np.testing.assert_array_equal(code, [[1, 0, 0, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0, 1]])
    np.testing.assert_array_equal(ActionSpec("discrete", (5,), (3,)).native(np.array([0, 4])), [3, 7])


def test_real_numbers_are_clipped_to_their_range() -> None:
    chosen = np.array([[-1, 1, 30, 0], [-9, 0.5, -30, 9]], np.float32)
    native = BOX.native(chosen)
    assert native.dtype == np.float32
    np.testing.assert_allclose(native, [[[-2, 1], [30, 6]], [[-2, 0.75], [-30, 7]]])
    np.testing.assert_allclose(BOX.encoded(native), [[-1, 1, 30, 0], [-1, 0.5, -30, 1]])


@pytest.mark.parametrize(
    ("spec", "actions", "message"),
    [
        (MULTI, np.zeros((2, 2), int), r"actions have shape \[2, 2\], expected \[2, 3\]"),
        (MULTI, np.ones((2, 3)), "actions are of type float64, expected whole numbers"),
        (MULTI, np.array([[1, 0, 0], [4, 0, 0]]), "an action is 4, allowed: 1 to 3"),
        (MULTI, np.array([[1, 0, 2], [1, 0, 0]]), "an action is 2, allowed: -2 to 1"),
        (BOX, np.full((2, 2, 2), "x"), "actions are of type <U1, expected real numbers"),
    ],
)
def test_wrong_actions_are_named(spec: ActionSpec, actions: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_choice(spec, actions, 2)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"kind": "boxes"}, "kind is 'boxes', allowed: discrete, multi_discrete, box"),
        ({"kind": "discrete", "sizes": [3, 2]}, "has 2 numbers"),
        ({"kind": "discrete", "sizes": [0]}, "sizes has 0"),
        ({"kind": "box", "low": [0.0], "high": [], "shape": [1]}, "do not fit 1 numbers"),
        ({"kind": "discrete", "size": [3]}, "actions has 'size', allowed"),
    ],
)
def test_specs_that_cannot_be(raw: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActionSpec.from_json(raw)
