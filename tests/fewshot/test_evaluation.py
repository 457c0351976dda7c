"""Accuracies and intervals."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from srwm_agents.fewshot import ClassifierConfig, FewShotClassifier
from srwm_agents.fewshot.evaluation import accuracy_within, evaluate, final_accuracy, mean_interval, validate
from srwm_agents.fewshot.tasks import FewShotTask, SequentialTask, Shape

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32, "input_softmax": False}


@pytest.fixture(params=["synchronous", "delayed"])
def classifier(request) -> FewShotClassifier:
    torch.manual_seed(0)
    config = ClassifierConfig("srwm", SETTINGS, 4, request.param, (1, 16, 16), encoder_settings={"channels": 4})
    return FewShotClassifier(config).eval()


def test_the_interval_is_that_of_a_mean() -> None:
    # s = sqrt(250 / 999) = 0.50025, divided by sqrt(1000), not by 1000.
    mean, half = mean_interval(np.repeat([0.0, 1.0], 500))
    assert mean == 0.5
    assert half == pytest.approx(1.96 * math.sqrt(250 / 999) / math.sqrt(1000))
    assert half == pytest.approx(0.031006, rel=1e-4)
    assert math.isnan(mean_interval(np.array([1.0]))[1])


def test_accuracy_within_ends_at_the_final_accuracy(classifier, bank, generator) -> None:
    episode = SequentialTask([bank, bank], Shape(4, 2, 3)).draw(10, generator)
    final = final_accuracy(classifier, episode)
    for i, (right, seen) in enumerate(accuracy_within(classifier, episode)):
        torch.testing.assert_close(right[-1].double().mean(1), final[:, i])
        labels, asked = episode[i].examples.labels, episode[i].queries.labels
        for t in range(len(seen)):
            expected = (labels[:, None, :t] == asked[:, :, None]).sum(-1)
            torch.testing.assert_close(seen[t], expected)


class Oracle:
    """A stand-in classifier that knows a class once it has seen an example, and answers label 0 before."""

    def embed(self, images):
        return images[..., 0, 0, 0].long()

    def blank(self, batch):
        return torch.full((batch, 10), -1)

    def read(self, shown, labels, memory):
        return None, memory.scatter(1, shown, labels)

    def answer(self, asked, memory):
        known = memory.gather(1, asked)
        return torch.nn.functional.one_hot(known.clamp_min(0), 4)


def test_curves_of_a_perfect_learner(bank) -> None:
    summary, curve = evaluate(Oracle(), FewShotTask(bank, Shape(4, 2, 4)), 400, batch_size=150, seed=3)  # type: ignore[arg-type]
    assert summary.to_dict("records") == [
        {"segment": "numbers", "accuracy": 1.0, "interval": 0.0, "episodes": 400, "examples": 8}
    ]
    shots = curve[curve["axis"] == "shots"].set_index("x")
    assert shots.index.tolist() == [0, 1, 2]
    assert shots.loc[1, "accuracy"] == shots.loc[2, "accuracy"] == 1.0
    examples = curve[curve["axis"] == "examples"].set_index("x")["accuracy"]
    assert examples.index.tolist() == list(range(9))
    assert examples[0] == 0.25  # one query a class, always answered 0
    assert examples.is_monotonic_increasing
    # After one example its class is right, and class 0 also if it is another: (1/4 · 1 + 3/4 · 2) / 4.
    assert examples[1] == pytest.approx(0.4375, abs=0.04)


def test_the_same_seed_gives_the_same_numbers(classifier, bank) -> None:
    task = FewShotTask(bank, Shape(4, 1, 2))
    one, two, other = (evaluate(classifier, task, 60, 25, seed)[1] for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, two)
    assert (one["accuracy"] != other["accuracy"]).any()
    assert validate(classifier, task, 60, 25, 0) == validate(classifier, task, 60, 25, 0)
