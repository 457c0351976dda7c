"""Few-shot accuracy: over many episodes, and after each example within them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from srwm_agents.fewshot.classifier import FewShotClassifier, check_finite
from srwm_agents.fewshot.tasks import Episode, Task

Floats = npt.NDArray[np.float64]
QUANTILE = 1.96
"""Of the normal distribution, for a 95 % interval."""


def mean_interval(values: Floats) -> tuple[float, float]:
    """Mean over episodes and half the width of its 95 % interval, 1.96 · s / sqrt(n), s with n - 1; NaN for n < 2."""
    n = len(values)
    if n < 2:
        return float(values.mean()) if n else math.nan, math.nan
    return float(values.mean()), QUANTILE * float(values.std(ddof=1)) / math.sqrt(n)


@torch.no_grad()
def final_accuracy(classifier: FewShotClassifier, episode: Episode) -> Tensor:
    """Accuracy of each episode after all examples of each segment, [B, segments]."""
    memory = classifier.blank(len(episode[0].examples.labels))
    columns = []
    for examples, queries in episode:
        _, memory = classifier.read(classifier.embed(examples.images), examples.labels, memory)
        logits = classifier.answer(classifier.embed(queries.images), memory)
        check_finite(logits.isfinite().all())
        columns.append((logits.argmax(-1) == queries.labels).double().mean(1))
    return torch.stack(columns, dim=1)


@torch.no_grad()
def accuracy_within(classifier: FewShotClassifier, episode: Episode) -> list[tuple[Tensor, Tensor]]:
    """Correctness of the queries' answers after every example, not only at the end.

    Returns for each segment: whether each answer is right, bool [S + 1, B, Q], after 0, 1, … S examples; and the number
    of examples of the query's class shown by then, [S + 1, B, Q].
    """
    memory = classifier.blank(len(episode[0].examples.labels))
    results = []
    for examples, queries in episode:
        shown, asked = classifier.embed(examples.images), classifier.embed(queries.images)
        right, seen, finite = (
            [],
            [torch.zeros_like(queries.labels)],
            torch.ones((), dtype=torch.bool, device=asked.device),
        )
        for t in range(examples.labels.shape[1] + 1):
            logits = classifier.answer(asked, memory)
            right.append(logits.argmax(-1) == queries.labels)
            finite = finite & logits.isfinite().all()
            if t < examples.labels.shape[1]:
                label = examples.labels[:, t : t + 1]
                _, memory = classifier.read(shown[:, t : t + 1], label, memory)
                seen.append(seen[-1] + (queries.labels == label))
        check_finite(finite)
        results.append((torch.stack(right), torch.stack(seen)))
    return results


def validate(
    classifier: FewShotClassifier, task: Task, episodes: int, batch_size: int, seed: int
) -> tuple[float, float]:
    """Mean final accuracy over segments and episodes, and half its 95 % interval; ``seed`` fixes the episodes."""
    accuracies = [final_accuracy(classifier, episode) for episode in _episodes(task, episodes, batch_size, seed)]
    return mean_interval(torch.cat(accuracies).mean(1).cpu().numpy())


def evaluate(
    classifier: FewShotClassifier,
    task: Task,
    episodes: int,
    batch_size: int = 100,
    seed: int = 0,
    on_batch: Callable[[int, float, float], None] = lambda *_: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Evaluate a classifier on ``episodes`` episodes of ``task``, ``batch_size`` at a time.

    Args:
        classifier: in evaluation mode.
        task: gives the episodes.
        episodes: how many.
        batch_size: how many at a time.
        seed: of the episodes.
        on_batch: called after each batch with its number of episodes, and with the accuracy of the last segment after
            all examples so far, and half of its 95 % interval (NaN of one episode).

    Returns:
        summary: a row a segment, with its accuracy after all examples.
        curve: rows (segment, axis, x): accuracy after x examples in all (axis "examples"), and of the queries whose own
        class has had x examples (axis "shots").
        Both have columns accuracy, interval (half the 95 % interval) and episodes (those with such a query).
    """
    by_example: list[list[Floats]] = [[] for _ in task.names]
    by_shot: list[list[Floats]] = [[] for _ in task.names]
    for episode in _episodes(task, episodes, batch_size, seed):
        for i, (right, seen) in enumerate(accuracy_within(classifier, episode)):
            by_example[i].append(right.double().mean(2).T.cpu().numpy())  # [B, S + 1]
            by_shot[i].append(_by_shot(right, seen).cpu().numpy())  # [B, K + 1]
        so_far = np.concatenate([batch[:, -1] for batch in by_example[-1]])
        on_batch(len(episode[0].examples.labels), *mean_interval(so_far))
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(task.names):
        for axis, columns in (("examples", np.concatenate(by_example[i])), ("shots", _padded(by_shot[i]))):
            for x, column in enumerate(columns.T):
                values = column[~np.isnan(column)]
                accuracy, interval = mean_interval(values)
                rows.append(
                    {"segment": name, "axis": axis, "x": x, "accuracy": accuracy, "interval": interval}
                    | {"episodes": len(values)}
                )
    curve = pd.DataFrame(rows)
    last = curve[curve["axis"] == "examples"].groupby("segment", sort=False).tail(1)
    summary = last.assign(examples=last["x"]).drop(columns=["axis", "x"]).reset_index(drop=True)
    return summary, curve


def _episodes(task: Task, episodes: int, batch_size: int, seed: int) -> Any:
    generator = torch.Generator(task.device).manual_seed(seed)
    for start in range(0, episodes, batch_size):
        yield task.draw(min(batch_size, episodes - start), generator)


def _by_shot(right: Tensor, seen: Tensor) -> Tensor:
    """[B, K + 1]: each episode's accuracy on queries with k examples of their class so far; NaN if there are none."""
    shots = int(seen.max()) + 1
    at = torch.nn.functional.one_hot(seen, shots).double()  # [S + 1, B, Q, K + 1]
    return (at * right[..., None]).sum((0, 2)) / at.sum((0, 2))


def _padded(parts: list[Floats]) -> Floats:
    """Concatenate arrays of unequal width, padded with NaN."""
    width = max(part.shape[1] for part in parts)
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=np.nan) for part in parts]
    return np.concatenate(padded)
