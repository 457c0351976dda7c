"""The policy's distributions, against PyTorch's in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import distributions

from srwm_agents.spaces.actions import ActionSpec
from srwm_agents.spaces.distributions import MAX_LOG_DEVIATION, MIN_LOG_DEVIATION, make_distribution

ONE = ActionSpec.discrete(5)
MULTI = ActionSpec("multi_discrete", (3, 2, 4), shape=(3,))
BOX = ActionSpec("box", shape=(2,), low=(-1.0, None), high=(1.0, None))


def parameters(spec: ActionSpec, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(7, spec.parameters, generator=generator, dtype=torch.float64).requires_grad_()


def reference(spec: ActionSpec, logits: torch.Tensor) -> list[Any]:
    """One of PyTorch's distributions for each number of a choice."""
    if spec.continuous:
        mean, log_deviation = logits.chunk(2, dim=-1)
        deviation = log_deviation.clamp(MIN_LOG_DEVIATION, MAX_LOG_DEVIATION).exp()
        return [distributions.Normal(mean[:, i], deviation[:, i]) for i in range(spec.count)]
    return [distributions.Categorical(logits=part) for part in logits.split(spec.sizes, dim=-1)]


@pytest.mark.parametrize("spec", [ONE, MULTI, BOX])
def test_everything_equals_pytorchs(spec: ActionSpec) -> None:
    logits, others = parameters(spec), parameters(spec, 1)
    ours, theirs = make_distribution(spec, logits), reference(spec, logits)
    actions = ours.sample(torch.Generator().manual_seed(2))
    assert actions.shape == (7, spec.count)
    expected = {
        "log_prob": sum(d.log_prob(actions[:, i]) for i, d in enumerate(theirs)),
        "entropy": sum(d.entropy() for d in theirs),
        "kl": sum(distributions.kl_divergence(a, b) for a, b in zip(theirs, reference(spec, others), strict=True)),
    }
    other: Any = make_distribution(spec, others)
    found = {"log_prob": ours.log_prob(actions), "entropy": ours.entropy(), "kl": ours.kl_divergence(other)}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
        gradient = torch.autograd.grad(value.sum(), logits, retain_graph=True, allow_unused=True)[0]
        torch.testing.assert_close(
            torch.autograd.grad(found[name].sum(), logits, retain_graph=True)[0], gradient, msg=f"gradient of {name}"
        )


@pytest.mark.parametrize("spec", [ONE, MULTI])
def test_the_prior_is_uniform(spec: ActionSpec) -> None:
    logits = parameters(spec)
    expected = torch.zeros(7, dtype=torch.float64)
    for size, d in zip(spec.sizes, reference(spec, logits), strict=True):
        uniform = distributions.Categorical(logits=torch.zeros(7, size, dtype=torch.float64))
        there, back = distributions.kl_divergence(d, uniform), distributions.kl_divergence(uniform, d)
        expected = expected + (there + back) / 2
    torch.testing.assert_close(make_distribution(spec, logits).symmetric_kl_with_uniform_prior(), expected)


def test_a_prior_over_all_real_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="--exploration_loss is 'symmetric_kl', expected 'entropy'"):
        make_distribution(BOX, parameters(BOX)).symmetric_kl_with_uniform_prior()


@pytest.mark.parametrize("spec", [ONE, MULTI, BOX])
def test_samples_have_the_probabilities(spec: ActionSpec) -> None:
    logits = parameters(spec)[:1].detach().expand(20_000, -1)
    ours = make_distribution(spec, logits)
    samples = ours.sample(torch.Generator().manual_seed(0)).double()
    for column, d in enumerate(reference(spec, logits[:1])):
        drawn = samples[:, column]
        if spec.continuous:
            mean, deviation = float(d.mean), float(d.stddev)
            assert float(drawn.mean()) == pytest.approx(mean, abs=5 * deviation / math.sqrt(20_000))
            assert float(drawn.std()) == pytest.approx(deviation, rel=0.03)
        else:
            share = torch.stack([(drawn == value).double().mean() for value in range(d.probs.shape[-1])])
            # Five standard errors of a share of 20,000.
            torch.testing.assert_close(share, d.probs[0], atol=5 * 0.5 / math.sqrt(20_000), rtol=0)


@pytest.mark.parametrize("spec", [ONE, MULTI, BOX])
def test_the_mode_is_the_likeliest(spec: ActionSpec) -> None:
    ours = make_distribution(spec, parameters(spec))
    best = ours.log_prob(ours.mode())
    for seed in range(20):
        assert (ours.log_prob(ours.sample(torch.Generator().manual_seed(seed))) <= best + 1e-9).all()


def test_deviations_are_bounded() -> None:
    extreme = torch.tensor([[0.0, 0.0, 100.0, -100.0]], dtype=torch.float64)
    ours = make_distribution(BOX, extreme)
    assert ours.log_prob(torch.zeros(1, 2)).isfinite().all()
    assert ours.entropy().item() == pytest.approx(
        MAX_LOG_DEVIATION + MIN_LOG_DEVIATION + math.log(2 * math.pi * math.e)
    )
