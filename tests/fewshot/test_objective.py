"""The loss of each task, against plain computations."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from srwm_agents.fewshot import ClassifierConfig, FewShotClassifier
from srwm_agents.fewshot.objective import Objective
from srwm_agents.fewshot.optimisation import AveragedWeights, backward_in_parts, learning_rate_factor
from srwm_agents.fewshot.tasks import BootstrapTask, FewShotTask, SequentialTask, Shape

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32, "input_softmax": False}


def make(labels: str = "synchronous", **settings) -> Objective:
    torch.manual_seed(0)
    config = ClassifierConfig("srwm", SETTINGS, 4, labels, (1, 16, 16), encoder_settings={"channels": 4})
    # In evaluation mode the encoder's norms do not couple the images, so parts can be computed one by one.
    return Objective(FewShotClassifier(config), **settings).eval()


def written_out(model: FewShotClassifier, episode):
    """(predictions, answers) of each segment."""
    memory = model.blank(len(episode[0].examples.labels))
    for examples, queries in episode:
        predictions, memory = model.read(model.embed(examples.images), examples.labels, memory)
        yield predictions, model.answer(model.embed(queries.images), memory)


def ce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def test_synchronous_labels_train_the_answers(bank, generator) -> None:
    objective = make()
    episode = FewShotTask(bank, Shape(4, 1, 3)).draw(6, generator)
    loss, accuracy = objective(episode)
    ((_, answers),) = written_out(objective.classifier, episode)
    labels = episode[0].queries.labels
    torch.testing.assert_close(loss, ce(answers, labels))
    torch.testing.assert_close(accuracy, (answers.argmax(-1) == labels).float().mean())


def test_delayed_labels_train_every_prediction(bank, generator) -> None:
    objective = make("delayed")
    episode = SequentialTask([bank, bank], Shape(4, 2, 1)).draw(6, generator)
    loss, _ = objective(episode)
    parts = [
        ce(torch.cat(pair, 1), torch.cat([segment.examples.labels, segment.queries.labels], 1))
        for segment, pair in zip(episode, written_out(objective.classifier, episode), strict=True)
    ]
    torch.testing.assert_close(loss, sum(parts) / 2)


def test_bootstrapping_pulls_the_first_answers_to_the_second(bank, generator) -> None:
    episode = BootstrapTask(bank, Shape(4, 1, 2), 2).draw(6, generator)
    objective = make(bootstrap_weight=10.0)
    (_, now), (_, future) = written_out(objective.classifier, episode)
    labels = episode[0].queries.labels
    p = future.softmax(-1).detach()
    kl = (p * (p.log() - now.log_softmax(-1))).sum(-1).mean()
    assert kl > 0
    loss, _ = objective(episode)
    torch.testing.assert_close(loss, ce(now, labels) + 10 * kl + ce(future, labels))
    # With the future detached in the KL, its gradient is that of its cross-entropy alone.
    expected = torch.autograd.grad(ce(now, labels) + 10 * kl + ce(future, labels), objective.classifier.head.weight)
    (actual,) = torch.autograd.grad(loss, objective.classifier.head.weight)
    torch.testing.assert_close(actual, expected[0])


def test_the_auxiliary_loss_knows_the_data_sets_classes(bank, generator) -> None:
    objective = make(auxiliary_weight=0.5, identities=bank.num_classes)
    episode = FewShotTask(bank, Shape(4, 2, 1)).draw(6, generator)
    loss, _ = objective(episode)
    examples, queries = episode[0]
    ((_, answers),) = written_out(objective.classifier, episode)
    assert objective.auxiliary is not None
    logits = objective.auxiliary(objective.classifier.embed(torch.cat([examples.images, queries.images], dim=1)))
    identities = torch.cat([examples.identities, queries.identities], dim=1)
    torch.testing.assert_close(loss, ce(answers, queries.labels) + 0.5 * ce(logits, identities))
    assert torch.equal(examples.identities, examples.images[..., 0, 0, 0].long())


def test_gradients_reach_every_weight(bank, generator) -> None:
    objective = make()
    objective(FewShotTask(bank, Shape(4, 2, 2)).draw(6, generator))[0].backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_parts_of_a_batch_change_nothing_but_memory(bank) -> None:
    task = FewShotTask(bank, Shape(4, 1, 2))
    whole = task.draw(12, torch.Generator().manual_seed(1))
    quarters = iter(
        [tuple(type(s)(*(type(d)(*(t[i : i + 3] for t in d)) for d in s)) for s in whole) for i in (0, 3, 6, 9)]
    )
    gradients, totals = [], []
    for draw, parts in ((lambda: whole, 1), (lambda: next(quarters), 4)):
        objective = make()
        totals.append(backward_in_parts(objective, draw, parts))
        gradients.append([parameter.grad for parameter in objective.parameters()])
    torch.testing.assert_close(totals[0], totals[1])
    for one, four in zip(*gradients, strict=True):
        torch.testing.assert_close(one, four, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 0.1),
        ("constant", 9, 1.0),
        ("constant", 10, 1.0),
        ("constant", 109, 1.0),
        ("linear", 10, 1.0),
        ("linear", 60, 0.5),
        ("linear", 110, 0.0),
        ("cosine", 60, 0.5),
        ("cosine", 35, 0.5 + 2**0.5 / 4),
        ("inverse_sqrt", 9, 1.0),
        ("inverse_sqrt", 39, 0.5),
    ],
)
def test_schedules(schedule: str, step: int, expected: float) -> None:
    assert learning_rate_factor(schedule, step, 10, 110) == pytest.approx(expected)


def test_learning_rate_follows_time_if_that_ends_first() -> None:
    assert learning_rate_factor("linear", 20, 0, 100, time_share=0.7) == pytest.approx(0.3)
    assert learning_rate_factor("linear", 80, 0, 100, time_share=0.7) == pytest.approx(0.2)
    assert learning_rate_factor("cosine", 0, 0, 10**9, time_share=1.0) == pytest.approx(0)
    assert learning_rate_factor("constant", 20, 0, 100, time_share=0.7) == 1


def test_averaged_weights_follow_with_the_given_decay() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = AveragedWeights(model, 0.9)
    torch.nn.init.constant_(model.weight, 3.0)
    assert model.running_mean is not None
    model.running_mean.fill_(5.0)
    for expected in (1.2, 1.38):
        average.update()
        torch.testing.assert_close(average.model.weight, torch.full((2,), expected))
    torch.testing.assert_close(average.model.running_mean, torch.full((2,), 5.0))
    assert AveragedWeights(model, 0.0).model is model
