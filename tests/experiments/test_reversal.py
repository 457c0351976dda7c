"""The small task that shows what a memory needs to play a sequence back, and its table."""

from __future__ import annotations

import gymnasium
import pandas as pd
import pytest

from experiments.recipes import recipe_names
from experiments.reversal import environment, table, train


def test_the_sequence_is_asked_for_in_reverse() -> None:
    env = environment.Reversal(length=5)
    (asks, symbol), _ = env.reset(seed=0)
    shown, total, ended = [symbol], 0.0, False
    for _ in range(4):
        (asks, symbol), reward, ended, _, _ = env.step(0)
        assert (asks, reward, ended) == (0, 0, False)
        shown.append(symbol)
    (asks, symbol), reward, *_ = env.step(0)
    assert (asks, symbol, reward) == (1, 0, 0)
    for step, wanted in enumerate(reversed(shown)):
        answer = wanted if step else (wanted + 1) % environment.KINDS
        _, reward, ended, _, _ = env.step(answer)
        total += reward
    assert ended
    assert total == pytest.approx((4 - 1) / 5)
    with pytest.raises(ValueError, match="length is 0, expected at least 1"):
        gymnasium.make("Reversal-v0", length=0)


@pytest.mark.parametrize("recipe", [name for name in recipe_names(train.STUDY.recipes) if name != "common"])
def test_recipes_give_what_their_names_say(recipe: str) -> None:
    (job,) = train.STUDY.jobs(recipe, "all", "1")
    core, ending = table.parts(recipe)
    assert job.resolved.settings["core"] == core
    assert job.resolved.settings["episode_step"] == ("step" in ending)
    assert job.resolved.settings["beta_bias"] == (-3 if "bias" in ending else 0)


def test_the_table() -> None:
    curve = pd.DataFrame({"frames": [1, 2], "mean_return": [0.1, 0.26]})
    assert list(table.lines({"gru": curve, "srwm_step_bias": curve})) == [
        "| given | SRWM | GRU |",
        "|---|---|---|",
        "| nothing | – | 0.26 |",
        "| bias | – | – |",
        "| step | – | – |",
        "| step and bias | 0.26 | – |",
    ]
