"""POPGym's environments as vectors; they come with the extra ``srwm-agents[popgym]``."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from srwm_agents.envs.gymnasium_vector import make_gymnasium

pytest.importorskip("popgym")

HARD = [f"{name}{size}" for name in ("Autoencode", "Battleship", "Concentration", "RepeatPrevious", "MultiarmedBandit")
        for size in ("Easy", "Medium", "Hard")]  # fmt: skip


def test_all_are_there() -> None:
    names = [id for id in gymnasium.registry if id.startswith("popgym-")]
    assert {f"popgym-{name}-v0" for name in (*HARD, "CountRecallEasy", "RepeatFirstEasy")} <= set(names)
    assert len(names) >= 42


@pytest.mark.parametrize("id", sorted(id for id in gymnasium.registry if id.startswith("popgym-")))
def test_every_one_is_played(id: str) -> None:
    vector = make_gymnasium(f"popgym:{id}", 3, 0, last_action=True, last_reward=True)
    observation, _ = vector.reset()
    vector.action_space.seed(0)
    for _ in range(60):
        for name, space in vector.single_observation_space.items():  # type: ignore[attr-defined]
            assert observation[name].shape == (3, *space.shape)
            assert np.isfinite(observation[name]).all()
            if observation[name].dtype.kind == "i":  # what is outside of its space has no code in the network's input
                assert all(space.contains(row) for row in observation[name]), name
        observation, rewards, *_ = vector.step(vector.action_space.sample())
        assert np.isfinite(rewards).all()
    vector.close()
