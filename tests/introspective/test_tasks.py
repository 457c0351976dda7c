"""The tasks: inputs and targets as documented, and solvable."""

from __future__ import annotations

import pytest
import torch

from srwm_agents.introspective.tasks import BOOLEAN_FUNCTIONS, TASKS, boolean, recall, rewrite


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", TASKS)
def test_the_same_seed_draws_the_same_sequences(name: str) -> None:
    task = TASKS[name]
    first, again, other = (task.sample(5, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.sequences, again.sequences, strict=True))
    assert not torch.equal(first.sequences.x, other.sequences.x)
    assert first.sequences.x.shape[2] == task.num_inputs
    assert first.sequences.target.shape[2] == task.num_outputs
    assert first.scored.any(1).all()
    # Only answers with a target count.
    assert first.sequences.present.any(2)[first.scored].all()


def test_boolean_is_determined_by_the_first_four_trials_and_not_by_less() -> None:
    x, target, present, wipe = boolean(400, generator()).sequences
    assert present.all()
    assert not wipe.any()
    pattern = ((x[:, :, 0] > 0) * 2 + (x[:, :, 1] > 0)).long()
    assert (pattern[:, :4].sort(1).values == torch.arange(4)).all()
    table = torch.zeros(400, 4).scatter(1, pattern[:, :4], target[:, :4, 0])
    assert torch.equal(table.gather(1, pattern), target[:, :, 0])
    seen = {tuple(row) for row in table.int().tolist()}
    assert seen == {BOOLEAN_FUNCTIONS[name] for name in ("and", "or", "xor", "nand")}
    # x alone does not determine the answer: the same pattern has both.
    assert all(0 < target[:, :, 0][pattern == k].mean() < 1 for k in range(4))


def test_recall_hides_its_cue_among_noise_as_large() -> None:
    (x, target, present, _), scored = recall(200, generator(), delay=5)
    assert torch.equal(x[:, 0, 0] > 0, target[:, -1, 0] > 0.5)
    assert (x[:, 1:-1, 0].abs() == 1).all()
    assert present[:, -1].all()
    assert not present[:, :-1].any()
    assert torch.equal(scored, present[:, :, 0])


def test_rewrite_asks_after_a_wipe_and_its_questions_say_nothing() -> None:
    (x, target, present, wipe), scored = rewrite(500, generator(), keys=2)
    assert torch.equal(wipe, present[:, :, 0])
    assert torch.equal(scored, wipe)
    assert (x[:, 2:, 2] == 0).all()
    for key in (0, 1):
        stored = (x[:, :2, key] * x[:, :2, 2]).sum(1)
        asked = (x[:, 2:, key] * target[:, 2:, 0]).sum(1)
        assert torch.equal(stored > 0, asked > 0.5)
        answers = target[:, 2:, 0][x[:, 2:, key] > 0]
        assert abs(answers.mean() - 0.5) < 0.1
