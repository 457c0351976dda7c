"""Training tasks: generators of input sequences with targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srwm_agents.introspective.dynamics import Sequences

BOOLEAN_FUNCTIONS: dict[str, tuple[int, int, int, int]] = {
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "xor": (0, 1, 1, 0),
    "nand": (1, 1, 1, 0),
    "nor": (1, 0, 0, 0),
    "xnor": (1, 0, 0, 1),
}
"""Values at (a, b) = (0, 0), (0, 1), (1, 0), (1, 1)."""


class TaskBatch(NamedTuple):
    """Sequences, one entry an input (see ``Sequences.blocks``), and which answers count for accuracy."""

    sequences: Sequences
    scored: Tensor
    """Bool [B, n_s]: answers that count for accuracy; a perfect learner gets all of them right."""


Generator = torch.Generator


@dataclass(frozen=True)
class Task:
    """A task and the settings that suit it; every setting can be overridden on the command line."""

    sample: Callable[[int, Generator], TaskBatch]
    """(number of sequences, generator) -> a batch, float32, on the CPU."""
    num_inputs: int
    """n_x."""
    about: str
    """One line for ``--help``."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Of :class:`srwm_agents.introspective.training.TrainConfig`."""
    num_outputs: int = 1
    """n_o."""


def boolean(
    number: int,
    generator: Generator,
    functions: tuple[str, ...] = ("and", "or", "xor", "nand"),
    trials: int = 12,
) -> TaskBatch:
    """Learn an unknown Boolean function from its errors; x = (a, b, 1) with bits -1 and 1, and a target every trial.

    Only ``eval``, one step after each answer, depends on the function. The first four trials are all four patterns in
    random order, the others are drawn independently; answers count from the fifth on, when every pattern has been seen.
    """
    tables = torch.tensor([BOOLEAN_FUNCTIONS[name] for name in functions], dtype=torch.float32)
    table = tables[torch.randint(len(functions), (number,), generator=generator)]
    first = torch.rand(number, 4, generator=generator).argsort(1)
    pattern = torch.cat([first, torch.randint(4, (number, trials - 4), generator=generator)], dim=1)
    bits = torch.stack([pattern // 2, pattern % 2], dim=2) * 2.0 - 1
    x = torch.cat([bits, torch.ones(number, trials, 1)], dim=2)
    target = table.gather(1, pattern)[:, :, None]
    scored = (torch.arange(trials) >= 4).expand(number, -1)
    return TaskBatch(_sequences(x, target, torch.ones(number, trials, dtype=torch.bool)), scored)


def recall(number: int, generator: Generator, delay: int = 5) -> TaskBatch:
    """Recall a bit after ``delay`` distracting inputs; x = (cue or noise, show flag, ask flag).

    Cue and noise are -1 or 1; there is a target only where the ask flag is 1.
    """
    x = torch.zeros(number, delay + 2, 3)
    cue = torch.randint(2, (number,), generator=generator).float()
    x[:, 0, 0] = cue * 2 - 1
    x[:, 1:-1, 0] = torch.randint(2, (number, delay), generator=generator) * 2.0 - 1
    x[:, 0, 1] = 1
    x[:, -1, 2] = 1
    asked = (torch.arange(delay + 2) == delay + 1).expand(number, -1)
    return TaskBatch(_sequences(x, cue[:, None, None].expand(-1, delay + 2, 1), asked), asked)


def rewrite(number: int, generator: Generator, keys: int = 2) -> TaskBatch:
    """Store a bit for each key in the weights, and recall it after activations are wiped; x = (one-hot key, bit).

    All keys are shown with their bits (-1 or 1) in random order, then asked with 0 in place of the bit, in random
    order. Before each question all activations are wiped, so that only weights can hold the answer. A net that cannot
    change its weights answers each question the same way in every sequence and is right half the time.
    """
    bits = torch.randint(2, (number, keys), generator=generator).float()
    shown, asked = (torch.rand(number, keys, generator=generator).argsort(1) for _ in range(2))
    order = torch.cat([shown, asked], dim=1)
    is_question = (torch.arange(2 * keys) >= keys).expand(number, -1)
    values = bits.gather(1, order)
    x = torch.cat([torch.eye(keys)[order], ((values * 2 - 1) * ~is_question)[:, :, None]], dim=2)
    return TaskBatch(_sequences(x, values[:, :, None], is_question, wipe=is_question), is_question)


def _sequences(x: Tensor, target: Tensor, asked: Tensor, wipe: Tensor | None = None) -> Sequences:
    wipe = torch.zeros_like(asked) if wipe is None else wipe
    return Sequences(x, target, asked[:, :, None].expand_as(target), wipe)


TASKS: dict[str, Task] = {
    "boolean": Task(
        boolean,
        num_inputs=3,
        about="infer from eval alone which of AND, OR, XOR, NAND a sequence uses",
        defaults={"steps_per_input": 3, "updates": 3000},
    ),
    "recall": Task(
        recall,
        num_inputs=3,
        about="recall the first input after five distracting ones",
        defaults={"steps_per_input": 2, "updates": 1000},
    ),
    "rewrite": Task(
        rewrite,
        num_inputs=3,
        about="store two bits while all activations are wiped, which only changed weights can do",
        defaults={"steps_per_input": 2, "updates": 1000},
    ),
}
