"""CUDA graphs and torch.compile in training: the same numbers as without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srwm_agents.cores import CORES
from srwm_agents.integrations.sample_factory.config import ConfigError

GPU = ("--device=gpu", "--num_batches_per_epoch=2", "--balance_games=True", "--policy_loss=ppo")


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """Fix cuDNN's algorithms and turn TF32 off: else two equal runs differ by more than an update's effect."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.fixture
def batches(make_learner, make_batch):
    """Function from a core to five batches of two minibatches: enough for warm-up, capture and replays."""

    def make(core: str = "srwm", *flags: str):
        actor = make_learner(*GPU, f"--core={core}", "--experiment=actor", *flags)
        return [make_batch(actor, seed) for seed in range(5)]

    return make


def train(learner, batches):
    for batch in batches:
        learner.train(batch)
    return learner


def assert_same_weights(one, other, **tolerance: Any) -> None:
    expected = dict(other.actor_critic.named_parameters())
    for name, parameter in one.actor_critic.named_parameters():
        torch.testing.assert_close(parameter, expected[name], **tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.gpu
@pytest.mark.parametrize("core", sorted(CORES))
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_captured_updates_equal_eager_ones(make_learner, batches, core: str, optimizer: str) -> None:
    # An epsilon of the gradients' size: otherwise Adam turns gradients that are only rounding into full steps.
    eps = ["--adam_eps=1e-3"] if optimizer == "adam" else []
    flags = (*GPU, f"--core={core}", f"--optimizer={optimizer}", *eps, "--experiment")
    experience = batches(core)
    plain = train(make_learner(*flags, "plain"), experience)
    graphed = train(make_learner(*flags, "graphed", "--cuda_graphs=True"), experience)
    assert any(capture.graph is not None for capture in graphed.update.graph._captures.values())
    assert graphed.train_step == plain.train_step
    assert_same_weights(graphed, plain, rtol=1e-3, atol=2e-5)
    torch.testing.assert_close(graphed.game_scales.mean_square, plain.game_scales.mean_square, rtol=1e-3, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("critic", ["detached", "separate"])
def test_captured_updates_train_a_critic_too(make_learner, batches, critic: str) -> None:
    flags = (*GPU, f"--critic={critic}", "--adam_eps=1e-3", "--experiment")
    experience = batches("srwm", f"--critic={critic}")
    plain = train(make_learner(*flags, "plain"), experience)
    graphed = train(make_learner(*flags, "graphed", "--cuda_graphs=True"), experience)
    assert any(capture.graph is not None for capture in graphed.update.graph._captures.values())
    assert_same_weights(graphed, plain, rtol=1e-3, atol=2e-5)


@pytest.mark.gpu
def test_captured_updates_of_the_policy_alone(make_learner, batches) -> None:
    flags = (*GPU, "--critic=separate", "--critic_every=3", "--adam_eps=1e-3", "--experiment")
    experience = batches("srwm", "--critic=separate")
    plain = train(make_learner(*flags, "plain"), experience)
    graphed = train(make_learner(*flags, "graphed", "--cuda_graphs=True"), experience)
    for update_graph in (graphed.update.graph, graphed.update._policy_graph):
        assert any(capture.graph is not None for capture in update_graph._captures.values())
    assert_same_weights(graphed, plain, rtol=1e-3, atol=2e-5)


@pytest.mark.gpu
def test_captured_updates_update_the_statistics(make_learner, batches) -> None:
    options = ("--balance_games=False", "--popart=True", "--reward_treatment=return_norm", "--popart_step_size=0.1")
    flags = (*GPU, *options, "--adam_eps=1e-3", "--experiment")
    experience = batches("srwm", *options)
    plain = train(make_learner(*flags, "plain"), experience)
    graphed = train(make_learner(*flags, "graphed", "--cuda_graphs=True"), experience)
    assert any(capture.graph is not None for capture in graphed.update.graph._captures.values())
    assert_same_weights(graphed, plain, rtol=1e-3, atol=2e-5)
    for name, statistic in graphed.actor_critic.popart.named_buffers():
        torch.testing.assert_close(
            statistic, dict(plain.actor_critic.popart.named_buffers())[name], rtol=1e-3, atol=1e-4
        )
    torch.testing.assert_close(graphed.return_scales.moments, plain.return_scales.moments)


@pytest.mark.gpu
@pytest.mark.parametrize("consistency", [0.0, 0.1])
def test_each_replay_draws_new_image_shifts(make_learner, make_batch, consistency: float) -> None:
    learner = make_learner(
        *(*GPU, "--cuda_graphs=True", "--learning_rate=0", "--augment_shift=4", "--policy_head_scale=1"),
        f"--augment_consistency={consistency}",
    )
    minibatch = next(learner.minibatches(learner._prepare_batch(make_batch(learner))[0]))
    seen = []
    for _ in range(8):
        losses, _ = learner.update(minibatch)
        seen.append((losses.ratios.clone(), float(losses.consistency)))
    assert any(capture.graph is not None for capture in learner.update.graph._captures.values())
    if consistency:
        torch.testing.assert_close(seen[-1][0], torch.ones_like(seen[-1][0]), rtol=1e-2, atol=1e-2)
        assert len({amount for _, amount in seen[-4:]}) > 1
    else:
        assert any((ratios != seen[-1][0]).any() for ratios, _ in seen[-4:-1])


@pytest.mark.gpu
@pytest.mark.parametrize("core", sorted(CORES))
def test_captured_acting_equals_eager_acting(make_learner, make_batch, core: str) -> None:
    learner = make_learner(*GPU, f"--core={core}", "--cuda_graphs=True")
    model = learner.actor_critic.eval()
    batch = make_batch(learner)
    steps = [
        (
            {name: entry[:, t].cuda() for name, entry in batch["obs"].items()},
            torch.rand_like(batch["rnn_states"][:, t]).cuda(),
        )
        for t in range(6)
    ]
    for inputs, state in steps:
        with torch.inference_mode():
            out = model(inputs, state)
            plain = model._forward({"observations": inputs, "state": state})
        for name in ("action_logits", "values", "new_rnn_states"):
            torch.testing.assert_close(out[name], plain[name], rtol=1e-4, atol=1e-5)
    inputs, state = steps[-1]
    actions = [model(inputs, state)["actions"].clone() for _ in range(8)]
    assert any((first != actions[0]).any() for first in actions[1:]), "a replay must draw new random numbers"


@pytest.mark.gpu
@pytest.mark.slow
def test_a_compiled_encoder_learns_the_same(make_learner, batches) -> None:
    flags = (*GPU, "--encoder_conv_architecture=resnet_impala", "--adam_eps=1e-3", "--experiment")
    experience = batches("srwm", "--encoder_conv_architecture=resnet_impala")
    plain = train(make_learner(*flags, "plain"), experience)
    both = train(make_learner(*flags, "both", "--cuda_graphs=True", "--compile=True"), experience)
    assert_same_weights(both, plain, rtol=1e-2, atol=2e-4)  # other convolution algorithms, TF32 among them


@pytest.mark.gpu
@pytest.mark.parametrize(("before", "after"), [("False", "True"), ("True", "False")])
def test_resuming_with_and_without_graphs(make_learner, batches, before: str, after: str) -> None:
    experience = batches()
    learner = train(make_learner(*GPU, f"--cuda_graphs={before}"), experience)
    learner.save()
    again = make_learner(*GPU, f"--cuda_graphs={after}")
    assert_same_weights(again, learner, rtol=0, atol=0)
    assert train(again, experience).train_step == 2 * learner.train_step


def test_on_a_cpu_graphs_are_off_unless_asked_for(make_cfg) -> None:
    cfg = make_cfg("--preset=fast", "--games=starpilot,leaper", "--num_envs_per_worker=384")
    assert not cfg.cuda_graphs
    assert not cfg.compile
    with pytest.raises(ConfigError, match="--cuda_graphs is True, but --device is 'cpu', expected 'gpu'"):
        make_cfg("--cuda_graphs=True")
