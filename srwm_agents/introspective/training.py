"""Training of the initial weights: independent nets in one batch, one a seed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srwm_agents.introspective.bumps import BUMPS, make_bump
from srwm_agents.introspective.dynamics import Dynamics
from srwm_agents.introspective.gradients import GRADIENTS, sequence_loss
from srwm_agents.introspective.net import IntrospectiveNet, initial_weights
from srwm_agents.introspective.tasks import TASKS, TaskBatch
from srwm_agents.introspective.wiring import Wiring
from srwm_agents.settings import Range, check_choices, check_ranges, check_types, setting

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
SCHEDULES = ("linear_decay", "constant")
SOLVED = 0.95
"""Accuracy from which a net counts as having solved its task."""
EVALUATION_SEQUENCES = 1000
"""Sequences a net in an evaluation."""


_AT_LEAST_1, _NOT_NEGATIVE = Range(1), Range(0)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run; the fields are the command line's flags, their metadata its help."""

    task: str = setting("boolean", "Task to learn", TASKS)
    updates: int = setting(3000, "Weight changes of eq. (5), each after a batch of sequences", allowed=_NOT_NEGATIVE)
    batch_size: int = setting(32, "Sequences an update", allowed=_AT_LEAST_1)
    seed: int = setting(0, "Of initial weights and sequences", allowed=_NOT_NEGATIVE)
    num_seeds: int = setting(1, "Nets trained side by side, with seeds from --seed on", allowed=_AT_LEAST_1)
    gradient: str = setting("auto", "bptt: back-propagation through time; forward; auto: the cheaper", GRADIENTS)
    optimizer: str = setting("adam", "sgd is eq. (5) as printed", OPTIMIZERS)
    learning_rate: float = setting(0.01, "Step size of the optimizer", allowed=_NOT_NEGATIVE)
    lr_schedule: str = setting("linear_decay", "Learning-rate schedule; linear_decay ends at 0", SCHEDULES)
    max_grad_norm: float = setting(1.0, "Largest norm of a net's gradient; 0: no clipping", allowed=_NOT_NEGATIVE)
    num_hidden: int = setting(0, "Hidden units; pointers are recurrent units, too", allowed=_NOT_NEGATIVE)
    steps_per_input: int = setting(2, "Time steps for which each input is shown, n_r", allowed=_AT_LEAST_1)
    bump: str = setting("gaussian", "g, the weight of a connection by its distance from a pointer", BUMPS)
    width: float = setting(0.5, "Of g; neighbouring addresses are 1 apart", allowed=Range(0, open_low=True))
    delta_scale: float = setting(
        1.0, "Largest weight change a time step; 0: no self-modification", allowed=_NOT_NEGATIVE
    )
    init_scale: float = setting(1.0, "Initial weights are from N(0, init_scale² / sources)", allowed=_NOT_NEGATIVE)
    precision: str = setting("float32", "Of weights and activations", PRECISIONS)

    def __post_init__(self) -> None:
        check_choices(self)
        check_ranges(self)
        check_types(self)

    @classmethod
    def of_task(cls, task: str, **settings: Any) -> TrainConfig:
        """The task's default settings, overridden by ``settings``; ValueError for an unknown task."""
        if task not in TASKS:
            raise ValueError(f"task is {task!r}, allowed: {', '.join(TASKS)}")
        return cls(**{"task": task, **TASKS[task].defaults, **settings})

    @property
    def wiring(self) -> Wiring:
        """The wiring of all nets of the run."""
        task = TASKS[self.task]
        return Wiring(task.num_inputs, task.num_outputs, self.num_hidden)

    def make_dynamics(self) -> Dynamics:
        """Make the dynamics that all nets of the run share."""
        dynamics = Dynamics(self.wiring, make_bump(self.bump, self.width), delta_scale=self.delta_scale)
        return dynamics.to(PRECISIONS[self.precision])

    def make_net(self) -> IntrospectiveNet:
        """Make one net with these settings and new initial weights."""
        task = TASKS[self.task]
        return IntrospectiveNet(
            task.num_inputs,
            task.num_outputs,
            self.num_hidden,
            steps_per_input=self.steps_per_input,
            bump=make_bump(self.bump, self.width),
            delta_scale=self.delta_scale,
            dtype=PRECISIONS[self.precision],
        )

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON-serialisable dict."""
        return asdict(self)


@dataclass
class Evaluation:
    """Loss and accuracy of each net, a list entry a seed."""

    loss: list[float]
    """Mean E_total a sequence."""
    accuracy: list[float]
    """Share of the scored answers that are right."""

    @property
    def solved(self) -> list[bool]:
        """Which nets have an accuracy of at least ``SOLVED``."""
        return [accuracy >= SOLVED for accuracy in self.accuracy]


class Training:
    """The nets of a run, their optimizer and their curves; ``srwm_agents.introspective.checkpoint`` saves it.

    Each seed has its own initial weights and sequences. The sequences are a function of seed and update, so no
    generator's state is saved, and an ablation of a seed gets the same sequences.
    """

    def __init__(self, config: TrainConfig, device: torch.device | str = "cpu", weights: Tensor | None = None) -> None:
        """Make a run that has not begun.

        Args:
            config: its settings.
            device: where to compute.
            weights: [S, K, Z], the initial weights of each net; None draws them.
        """
        self.config = config
        self.device = device
        self.dynamics = config.make_dynamics().to(device)
        self.task = TASKS[config.task]
        if weights is None:
            wiring, scale = self.dynamics.wiring, config.init_scale
            weights = torch.stack([initial_weights(wiring, scale, _generator(seed, 0)) for seed in self.seeds])
        self.weights = weights.to(device, PRECISIONS[config.precision]).requires_grad_()
        self.optimizer = OPTIMIZERS[config.optimizer]([self.weights], lr=config.learning_rate)
        self.update = 0
        self.seconds = 0.0
        """Time spent on updates, over all resumptions."""
        self.curve: list[dict[str, Any]] = []
        self._recent: list[tuple[list[float], list[float]]] = []

    @property
    def seeds(self) -> range:
        """The seeds of the nets."""
        return range(self.config.seed, self.config.seed + self.config.num_seeds)

    def run(self) -> Iterator[Evaluation]:
        """Train to the last update; yields loss and accuracy on each update's sequences before the update."""
        while self.update < self.config.updates:
            began = time.perf_counter()
            result = self._one_update()
            self.seconds += time.perf_counter() - began
            yield result

    def _one_update(self) -> Evaluation:
        config = self.config
        decayed = config.lr_schedule == "linear_decay"
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - self.update / config.updates if decayed else 1)
        loss, accuracy = self._play(config.batch_size, 2 + self.update, config.gradient)
        if not loss.isfinite().all():
            seed = self.seeds[int((~loss.isfinite()).nonzero()[0])]
            raise ValueError(f"seed {seed}: the loss is not finite after {self.update} updates; lower --learning_rate")
        self.optimizer.zero_grad()
        loss.sum().backward()  # each loss depends on its own weights only
        gradient = self.weights.grad
        assert gradient is not None
        if config.max_grad_norm:
            norm = gradient.flatten(1).norm(dim=1).clamp(min=config.max_grad_norm)
            gradient *= (config.max_grad_norm / norm)[:, None, None]
        self.optimizer.step()
        self.update += 1
        result = Evaluation(loss.tolist(), accuracy.tolist())
        self._record(result)
        return result

    def _record(self, result: Evaluation) -> None:
        """Add to the curve: about a hundred points in all, each the mean over the updates since the last."""
        self._recent.append((result.loss, result.accuracy))
        if self.update % max(1, self.config.updates // 100) == 0 or self.update == self.config.updates:
            loss, accuracy = torch.tensor(self._recent, dtype=torch.float64).mean(0).round(decimals=6).tolist()
            self.curve.append({"update": self.update, "loss": loss, "accuracy": accuracy})
            self._recent = []

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss and accuracy on ``EVALUATION_SEQUENCES`` sequences a net that are not used in training."""
        loss, accuracy = self._play(EVALUATION_SEQUENCES, 1, "bptt")
        return Evaluation(loss.tolist(), accuracy.tolist())

    def evaluation_batch(self, index: int, number: int) -> TaskBatch:
        """Draw ``number`` evaluation sequences of net ``index``."""
        return self.task.sample(number, _generator(self.seeds[index], 1))

    def _play(self, number: int, stream: int, gradient: str) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of each net on ``number`` sequences, both [S]."""
        batches = [self.task.sample(number, _generator(seed, stream)) for seed in self.seeds]
        parts = zip(*(batch.sequences for batch in batches), strict=True)
        sequences = type(batches[0].sequences)(*(torch.cat(part).to(self.device) for part in parts))
        sequences = sequences._replace(
            x=sequences.x.to(self.weights.dtype), target=sequences.target.to(self.weights.dtype)
        )
        scored = torch.cat([batch.scored for batch in batches]).to(self.device)
        weight = self.weights.repeat_interleave(number, dim=0)
        steps = self.config.steps_per_input
        loss, output = sequence_loss(self.dynamics, weight, sequences.blocks(steps), gradient)
        right = ((output[:, steps - 1 :: steps] > 0.5) == (sequences.target > 0.5)).all(2) & scored
        counts = [part.reshape(len(self.seeds), -1).sum(1) for part in (right, scored)]
        return loss.view(len(self.seeds), number).mean(1), counts[0] / counts[1]


def _generator(seed: int, stream: int) -> torch.Generator:
    """The generator of a seed's initial weights (``stream`` 0), evaluation (1) or update u (2 + u)."""
    # PyTorch's generator uses only 32 bits of its seed.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, stream)).generate_state(1)[0]))
