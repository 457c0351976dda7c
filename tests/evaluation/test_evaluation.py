"""Evaluation episodes, statistics and plots: exact counts, seeds, simple references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from srwm_agents.agent import Agent, AgentConfig
from srwm_agents.envs import NUM_ACTIONS
from srwm_agents.evaluation import (
    Forgetful,
    RandomPolicy,
    Split,
    aggregate,
    make_splits,
    per_game,
    play_episodes,
    plot_curves,
)
from srwm_agents.evaluation.arenas import ProcgenArena
from srwm_agents.evaluation.rollouts import play, play_in_turn

SPLIT = Split("train", 0, 20)


class Recorder(RandomPolicy):
    """A random policy with a state, which must keep belonging to its environment when others have finished."""

    def act(self, observation, state=None, *, resets=None, generator=None, **_):
        batch = len(observation["obs"])
        assert resets is not None
        state = torch.zeros(batch, 1) if state is None else state
        state = torch.where(torch.as_tensor(resets)[:, None], 0, state) + 1
        actions, _ = super().act(observation, generator=generator)
        self.ages = getattr(self, "ages", 0) + int(torch.as_tensor(resets).sum())
        self.longest = max(getattr(self, "longest", 0), int(state.max()))
        return actions, state


def test_exactly_as_many_episodes_as_asked_for() -> None:
    policy = Recorder()
    frame = play_episodes(policy, ["starpilot", "leaper"], "easy", SPLIT, episodes=5, seed=1, max_envs=3)
    assert frame.groupby("game").size().to_dict() == {"leaper": 5, "starpilot": 5}
    assert frame["level"].between(0, 19).all()
    assert (frame["length"] > 0).all()
    assert policy.longest == frame["length"].max()
    assert policy.ages == len(frame)


def test_the_same_seed_gives_the_same_numbers() -> None:
    frames = [play_episodes(RandomPolicy(), ["starpilot"], "easy", SPLIT, episodes=4, seed=s) for s in (1, 1, 2)]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    assert not frames[0]["length"].equals(frames[2]["length"])


def test_splits_in_turn_give_the_numbers_of_each_alone() -> None:
    arena, splits = ProcgenArena(["starpilot"], "easy"), [SPLIT, Split("other", 50, 20)]
    settings: dict[str, Any] = {"episodes": 3, "seed": 1, "max_envs": 2}
    ended = []
    together = play_in_turn(RandomPolicy(), arena, splits, on_range=lambda index, _: ended.append(index), **settings)
    assert sorted(ended) == [0, 1]
    for frame, split in zip(together, splits, strict=True):
        pd.testing.assert_frame_equal(frame, play(RandomPolicy(), arena, split, **settings))


def test_a_policy_that_fails_leaves_no_simulator_stepping() -> None:
    class Broken(RandomPolicy):
        calls = 0

        def act(self, *arguments, **options):
            self.calls += 1
            if self.calls == 5:  # while the first split's simulator steps
                raise ValueError("broken")
            return super().act(*arguments, **options)

    splits = [SPLIT, Split("other", 50, 20)]
    with pytest.raises(ValueError, match="broken"):
        play_in_turn(Broken(), ProcgenArena(["starpilot"], "easy"), splits, episodes=3, num_threads=1)


def test_stopped_playing_keeps_the_rounds_that_all_environments_have_finished() -> None:
    games: list[str] = ["starpilot", "leaper"]
    settings: dict[str, Any] = {"episodes": 9, "seed": 1, "max_envs": 3}
    whole = play_episodes(RandomPolicy(), games, "easy", SPLIT, **settings)
    steps = iter(range(1_000_000))
    part = play_episodes(RandomPolicy(), games, "easy", SPLIT, stop=lambda: next(steps) > 400, **settings)
    assert 0 < len(part) < len(whole)
    for game in games:
        first, all_of_them = (frame[frame["game"] == game].reset_index(drop=True) for frame in (part, whole))
        assert len(first) % 3 == 0
        rounds = len(first) // 3
        # Rows are by environment: three rounds each in the whole.
        expected = all_of_them.groupby(all_of_them.index // 3).head(rounds)
        assert first["return"].tolist() == expected["return"].tolist()


def test_forgetful_resets_the_state_at_every_step() -> None:
    policy = Recorder()
    play_episodes(Forgetful(policy), ["starpilot"], "easy", SPLIT, episodes=2, seed=1)
    assert policy.longest == 1


class OnTheHost(ProcgenArena):
    """Observations as NumPy arrays, whatever the agent's device."""

    def make(self, *arguments, device=None, **options):
        return super().make(*arguments, **options)


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [False, True])
def test_frames_that_stay_on_the_gpu_give_the_same_episodes(deterministic) -> None:
    torch.manual_seed(0)
    agent = Agent(AgentConfig("srwm", {"hidden_size": 32, "num_heads": 2}, NUM_ACTIONS, scale=255)).eval().cuda()
    there, here = (
        play(agent, arena, SPLIT, episodes=5, seed=1, max_envs=3, device="cuda", deterministic=deterministic)
        for arena in (kind(["starpilot", "leaper"], "easy") for kind in (ProcgenArena, OnTheHost))
    )
    pd.testing.assert_frame_equal(there, here)


def test_wrong_number_of_episodes() -> None:
    with pytest.raises(ValueError, match="episodes is 0, expected at least 1"):
        play_episodes(RandomPolicy(), ["maze"], "easy", SPLIT, episodes=0)


def frame_of(scores: dict[str, list[float]], split: str = "train") -> pd.DataFrame:
    rows = [(split, game, i, s, s, 1, 0, True) for game, values in scores.items() for i, s in enumerate(values)]
    columns = ["split", "game", "episode", "return", "normalised_score", "length", "level", "completed"]
    return pd.DataFrame(rows, columns=columns)


def test_means_and_intervals() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 2, 400)
    row = per_game(frame_of({"maze": list(values)})).iloc[0]
    assert row["return"] == pytest.approx(values.mean())
    # For 400 draws the bootstrap's interval is within a few per cent of the normal approximation.
    half = 1.96 * values.std(ddof=1) / 20
    assert row["return_low"] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert row["return_high"] == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert row["episodes"] == 400


def test_one_episode_has_no_interval() -> None:
    row = per_game(frame_of({"maze": [1.0]})).iloc[0]
    assert np.isnan(row["return_low"])


def test_aggregates_are_over_games_and_stratified() -> None:
    scores = {"maze": [0.0] * 8, "heist": [1.0] * 8}
    row = aggregate(frame_of(scores)).iloc[0]
    # Without strata the resampled mean would vary; with them each game keeps its own constant.
    assert (row["mean"], row["mean_low"], row["mean_high"]) == (0.5, 0.5, 0.5)
    row = aggregate(frame_of({"maze": [0.0, 1.0, 2.0, 100.0]})).iloc[0]
    assert row["iqm"] == 1.5  # the middle half of 0, 1, 2, 100
    assert row["mean"] == 25.75


def test_splits() -> None:
    trained = {"start_level": 0, "num_levels": 200}
    assert make_splits(["train"], trained) == [Split("train", 0, 200)]
    assert [split.start_level for split in make_splits(["test"], trained)] == [1000, 1200, 1400]
    with pytest.raises(
        ValueError, match="unknown split 'tset'; did you mean 'test'\\? allowed: train, validation, test"
    ):
        make_splits(["tset"], trained)
    with pytest.raises(ValueError, match="does not record its training levels"):
        make_splits(["train"], {})


def test_curves_are_drawn(tmp_path) -> None:
    file = tmp_path / "curves.csv"
    file.write_text("frames,seconds,game,episodes,mean_return,mean_length,normalised_score\n")
    with pytest.raises(ValueError, match="has no rows yet"):
        plot_curves(file, tmp_path / "curves.png")
    with file.open("a") as handle:
        for frames in (1000, 2000):
            handle.write(f"{frames},1.0,maze,3,5.0,10,0.1\n{frames},1.0,heist,3,4.0,10,0.2\n")
    assert plot_curves(file, tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the column"):
        plot_curves(tmp_path / "bad.csv", tmp_path / "bad.png")
