"""Few-shot tasks: samplers of episodes.

An episode is a tuple of segments, each with labelled examples and then queries. Queries are *independent*: each is
answered from the state after the examples, so that an episode with many queries measures the same as many episodes with
one query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from srwm_agents.fewshot.augmentation import Augmentation
from srwm_agents.fewshot.bank import Chosen, Draw, ImageBank, occurrence, shuffled_labels


class Segment(NamedTuple):
    """Examples, then queries, for B episodes; images are uint8."""

    examples: Draw
    """[B, S, …], in the order in which they are shown."""
    queries: Draw
    """[B, Q, …]."""


Episode = tuple[Segment, ...]


class Task(Protocol):
    """A sampler of episodes."""

    names: tuple[str, ...]
    """Name of each segment, for reports."""
    device: torch.device
    """Device of the images."""

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Episode:
        """Sample ``batch`` episodes on ``device``; the same generator state gives the same episodes."""
        ...


@dataclass(frozen=True)
class Shape:
    """Numbers of classes, examples and queries of an episode."""

    ways: int = 5
    """N, classes an episode."""
    shots: int = 1
    """K, examples a class."""
    queries: int = 1
    """Queries an episode; every N of them have each class once, in random order."""

    @property
    def queries_per_class(self) -> int:
        """Largest number of queries of one class."""
        return -(-self.queries // self.ways)


class FewShotTask:
    """N-way K-shot: N·K examples in random order, then the queries. Vinyals et al., NeurIPS 2016."""

    def __init__(self, bank: ImageBank, shape: Shape, augmentation: Augmentation | None = None) -> None:
        """Make the task; :class:`DataError` if the bank has too few classes or images."""
        bank.check(shape.ways, shape.shots + shape.queries_per_class)
        self.bank, self.shape, self.augmentation = bank, shape, augmentation
        self.names, self.device = (bank.name,), bank.device

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Episode:
        per_class = self.shape.shots + self.shape.queries_per_class
        chosen = self.bank.choose(batch, self.shape.ways, per_class, generator)
        examples = _examples(self.bank, chosen, self.shape.ways, 0, self.shape.shots, self.augmentation, generator)
        return (Segment(examples, _queries(self.bank, chosen, self.shape, self.augmentation, generator)),)


class BootstrapTask:
    """Bootstrapped N-way K-shot: after examples and queries, further 'future' examples and the same queries again.

    Source: Irie & Schmidhuber, "Accelerating Neural Self-Improvement via Bootstrapping", ICLR 2023 workshop. The loss
    pulls the first answers towards the second ones (:mod:`srwm_agents.fewshot.objective`).
    """

    def __init__(
        self, bank: ImageBank, shape: Shape, future_shots: int, augmentation: Augmentation | None = None
    ) -> None:
        """``future_shots``: further examples a class in the second segment."""
        bank.check(shape.ways, shape.shots + future_shots + shape.queries_per_class)
        self.bank, self.shape, self.future_shots, self.augmentation = bank, shape, future_shots, augmentation
        self.names, self.device = (bank.name, f"{bank.name}, {future_shots} more shots"), bank.device

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Episode:
        shape, future = self.shape, self.future_shots
        last = shape.shots + future
        chosen = self.bank.choose(batch, shape.ways, last + shape.queries_per_class, generator)
        now = _examples(self.bank, chosen, shape.ways, 0, shape.shots, self.augmentation, generator)
        later = _examples(self.bank, chosen, shape.ways, shape.shots, future, self.augmentation, generator)
        queries = _queries(self.bank, chosen, shape, self.augmentation, generator, first=last)
        return Segment(now, queries), Segment(later, queries)


class SequentialTask:
    """Two data sets one after the other in one sequence, without a reset of the state in between.

    Source: Irie et al., ICML 2022, section 4.2. In training the halves of a batch have opposite orders of the data
    sets, and the number of examples of each segment is drawn for every batch, from N to N·K.
    """

    def __init__(
        self,
        banks: Sequence[ImageBank],
        shape: Shape,
        augmentation: Augmentation | None = None,
        *,
        both_orders: bool = True,
        random_lengths: bool = True,
    ) -> None:
        """Make the task.

        Args:
            banks: the two data sets, in the order of the sequence (with ``both_orders``, of each batch's first half).
            shape: of each segment.
            augmentation: of all images; None: none.
            both_orders: whether each batch's second half has the opposite order; its size must then be even.
            random_lengths: whether numbers of examples are random; else N·K.

        Raises:
            ValueError: not two banks; :class:`DataError`: one has too few classes or images.
        """
        if len(banks) != 2:
            raise ValueError(f"the sequential task takes two data sets, not {len(banks)}")
        for bank in banks:
            bank.check(shape.ways, shape.shots + shape.queries_per_class)
        self.banks, self.shape, self.augmentation = tuple(banks), shape, augmentation
        self.both_orders, self.random_lengths = both_orders, random_lengths
        self.device = banks[0].device
        first, second = (bank.name for bank in banks)
        self.names = ("first part", "second part") if both_orders else (f"{first}, first", f"{second}, second")

    def draw(self, batch: int, generator: torch.Generator | None = None) -> Episode:
        if not self.both_orders:
            return self._draw(batch, self.banks, self._lengths(), generator)
        if batch % 2:
            raise ValueError(f"batch_size / gradient_accumulation is {batch}, expected an even one for two orders")
        lengths = self._lengths()
        forth = self._draw(batch // 2, self.banks, lengths, generator)
        back = self._draw(batch // 2, self.banks[::-1], lengths, generator)
        return tuple(
            Segment(*(Draw(*map(torch.cat, zip(x, y, strict=True))) for x, y in zip(a, b, strict=True)))
            for a, b in zip(forth, back, strict=True)
        )

    def _lengths(self) -> list[int]:
        longest = self.shape.ways * self.shape.shots
        if not self.random_lengths:
            return [longest, longest]
        # From the CPU's generator on any device, since the host needs shapes.
        return torch.randint(self.shape.ways, longest + 1, (2,)).tolist()

    def _draw(
        self, batch: int, banks: Sequence[ImageBank], lengths: Sequence[int], generator: torch.Generator | None
    ) -> Episode:
        segments = []
        for bank, length in zip(banks, lengths, strict=True):
            shape = self.shape
            chosen = bank.choose(batch, shape.ways, shape.shots + shape.queries_per_class, generator)
            examples = _examples(bank, chosen, shape.ways, 0, shape.shots, self.augmentation, generator, length)
            segments.append(Segment(examples, _queries(bank, chosen, shape, self.augmentation, generator)))
        return tuple(segments)


def _examples(
    bank: ImageBank,
    chosen: Chosen,
    ways: int,
    first: int,
    shots: int,
    augmentation: Augmentation | None,
    generator: torch.Generator | None,
    length: int | None = None,
) -> Draw:
    """Examples: of each class ``shots`` chosen images from number ``first`` on, shuffled, cut to ``length``."""
    labels = shuffled_labels(len(chosen.classes), ways, shots, bank.device, generator)[:, :length]
    return bank.fetch(chosen, labels, first + occurrence(labels, ways), augmentation, generator)


def _queries(
    bank: ImageBank,
    chosen: Chosen,
    shape: Shape,
    augmentation: Augmentation | None,
    generator: torch.Generator | None,
    first: int | None = None,
) -> Draw:
    """Queries: chosen images from number ``first`` on (None: after the examples), each class once a round, shuffled."""
    batch, rounds = len(chosen.classes), shape.queries_per_class
    order = torch.rand(batch, rounds, shape.ways, device=bank.device, generator=generator).argsort(dim=2)
    labels = order.flatten(1)[:, : shape.queries]
    nth = torch.arange(shape.queries, device=bank.device) // shape.ways + (shape.shots if first is None else first)
    return bank.fetch(chosen, labels, nth.expand(batch, -1), augmentation, generator)
