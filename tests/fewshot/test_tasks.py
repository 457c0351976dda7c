"""Episodes: labels, distinct images, reproducible sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from srwm_agents.fewshot.augmentation import Augmentation
from srwm_agents.fewshot.bank import Draw, ImageBank
from srwm_agents.fewshot.data import DataError
from srwm_agents.fewshot.tasks import BootstrapTask, FewShotTask, SequentialTask, Shape


def classes_of(draw: Draw) -> torch.Tensor:
    return draw.images[..., 0, 0, 0].long()


def numbers_of(draw: Draw) -> torch.Tensor:
    return draw.images[..., 0, 0, 1].long()


def test_examples_and_queries_are_what_the_protocol_says(bank, generator) -> None:
    ((examples, queries),) = FewShotTask(bank, Shape(ways=4, shots=2, queries=6)).draw(50, generator)
    assert examples.images.shape == (50, 8, 1, 16, 16)
    assert queries.images.shape == (50, 6, 1, 16, 16)
    assert examples.images.dtype == torch.uint8
    for labels, classes, numbers, asked, asked_classes, asked_numbers in zip(
        *(examples.labels, classes_of(examples), numbers_of(examples)),
        *(queries.labels, classes_of(queries), numbers_of(queries)),
        strict=True,
    ):
        assert labels.bincount().tolist() == [2] * 4
        names = dict(zip(labels.tolist(), classes.tolist(), strict=True))
        assert len(set(names.values())) == 4  # one class a label
        assert [names[label] for label in asked.tolist()] == asked_classes.tolist()
        assert sorted(asked[:4].tolist()) == [0, 1, 2, 3]  # a round asks each class once
        images = {*zip(classes.tolist(), numbers.tolist(), strict=True)}
        images |= {*zip(asked_classes.tolist(), asked_numbers.tolist(), strict=True)}
        assert len(images) == 14  # no image twice
    torch.testing.assert_close(examples.identities, classes_of(examples))


def test_order_classes_and_labels_are_uniform(bank) -> None:
    ((examples, queries),) = FewShotTask(bank, Shape(5, 1, 1)).draw(20_000, torch.Generator().manual_seed(1))
    # Each count is binomial; five standard deviations are allowed.
    for position in range(5):
        assert (examples.labels[:, position].bincount() - 4000).abs().max() < 5 * (20_000 * 0.16) ** 0.5
    assert (queries.labels.flatten().bincount() - 4000).abs().max() < 5 * (20_000 * 0.16) ** 0.5
    first = classes_of(examples)[examples.labels == 0]
    assert (first.bincount() - 2500).abs().max() < 5 * (20_000 * 7 / 64) ** 0.5


def test_the_same_generator_gives_the_same_episodes(bank) -> None:
    task = FewShotTask(bank, Shape(5, 2, 3), Augmentation(shift=2, flip=True))
    one, two, other = (task.draw(4, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4))
    for a, b in zip([*one.examples, *one.queries], [*two.examples, *two.queries], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert (one.examples.images != other.examples.images).any()


def test_small_classes_are_not_read_beyond_their_end(numbered, generator) -> None:
    bank = ImageBank(numbered(counts=(3, 9, 3, 5)))
    ((examples, queries),) = FewShotTask(bank, Shape(4, 2, 4)).draw(200, generator)
    counts = torch.tensor([3, 9, 3, 5])
    for draw in (examples, queries):
        assert (numbers_of(draw) < counts[classes_of(draw)]).all()
        torch.testing.assert_close(draw.identities, classes_of(draw))


def test_rotated_classes_are_classes_of_their_own(numbered, generator) -> None:
    bank = ImageBank(numbered(counts=(2, 2)), rotations=True)
    assert bank.num_classes == 8
    ((examples, _),) = FewShotTask(bank, Shape(8, 1, 1)).draw(1, generator)
    # A class number is in the top left corner, or where a turn has put it; class 0's pixels are all black.
    corners = examples.images[0, :, 0][:, [0, 15, 15, 0], [0, 0, 15, 15]]
    turned = zip(examples.identities[0].tolist(), corners, strict=True)
    places = {(identity // 2, int(corner.argmax())) for identity, corner in turned if corner.any()}
    assert places == {(0, 0), (1, 1), (2, 2), (3, 3)}


def test_augmentation_shifts_and_mirrors_whole_pixels(numbered, generator) -> None:
    images = numbered(counts=(40, 40), side=16)
    pixels = np.tile(np.arange(16, dtype=np.uint8), (80, 1, 16, 1))  # brightness is the column
    bank = ImageBank(replace(images, images=pixels))
    ((examples, _),) = FewShotTask(bank, Shape(2, 20, 1), Augmentation(shift=3, flip=True)).draw(5, generator)
    rows = examples.images[:, :, 0, 0].flatten(0, 1).int()
    assert (examples.images == examples.images[..., :1, :]).all()
    moves = set()
    for row in rows:
        mirrored = bool(row[0] > row[-1])
        upright = row.flip(0) if mirrored else row
        move = int(upright[8]) - 8
        np.testing.assert_array_equal(upright, np.clip(np.arange(16) + move, 0, 15))
        moves.add((mirrored, move))
    assert moves == {(mirrored, move) for mirrored in (False, True) for move in range(-3, 4)}


def test_bootstrap_asks_the_same_queries_after_further_examples(bank, generator) -> None:
    now, later = BootstrapTask(bank, Shape(4, 2, 4), future_shots=3).draw(30, generator)
    assert now.examples.labels.shape == (30, 8)
    assert later.examples.labels.shape == (30, 12)
    torch.testing.assert_close(now.queries.images, later.queries.images, rtol=0, atol=0)
    for b in range(30):
        shown = torch.cat(
            [torch.stack([classes_of(d)[b], numbers_of(d)[b]]) for d in (now.examples, later.examples)], 1
        )
        asked = torch.stack([classes_of(now.queries)[b], numbers_of(now.queries)[b]])
        everything = torch.cat([shown, asked], 1).T.tolist()
        assert len(everything) == len({tuple(pair) for pair in everything}) == 24


def test_sequences_join_two_data_sets_in_both_orders(numbered, generator) -> None:
    banks = [ImageBank(numbered("a")), ImageBank(numbered("b", (5,) * 6))]
    banks[1].images[:, 0, 5, 5] = 77  # marks the second data set
    task = SequentialTask(banks, Shape(4, 3, 2))
    lengths = set()
    for _ in range(40):
        first, second = task.draw(6, generator)
        lengths |= {first.examples.labels.shape[1], second.examples.labels.shape[1]}
        for part, (forth, back) in ((first, (0, 77)), (second, (77, 0))):
            for draw in part:
                assert (draw.images[:3, :, 0, 5, 5] == forth).all()
                assert (draw.images[3:, :, 0, 5, 5] == back).all()
    assert min(lengths) >= 4
    assert max(lengths) <= 12
    assert len(lengths) > 5
    with pytest.raises(ValueError, match="gradient_accumulation is 5, expected an even one"):
        task.draw(5, generator)
    fixed = SequentialTask(banks[::-1], Shape(4, 3, 2), both_orders=False, random_lengths=False)
    first, second = fixed.draw(3, generator)
    assert first.examples.labels.shape == second.examples.labels.shape == (3, 12)
    assert (first.examples.images[..., 5, 5] == 77).all()
    assert fixed.names == ("b, first", "a, second")


def test_too_little_data_is_an_error(bank) -> None:
    with pytest.raises(
        DataError,
        match=r"numbers has 8 classes here, 9-way episodes need 9; here is the split '.*': --ways 8 in training",
    ):
        FewShotTask(bank, Shape(9, 1, 1))
    with pytest.raises(DataError, match="has a class of 6 images, these episodes need 7 of each"):
        FewShotTask(bank, Shape(5, 6, 1))
    with pytest.raises(ValueError, match="takes two data sets, not 1"):
        SequentialTask([bank], Shape())
