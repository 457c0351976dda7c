"""Our encoders and cores in Sample Factory's model, and its export as a portable agent."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from srwm_agents.agent import load_agent, save_agent
from srwm_agents.cores import CORES
from srwm_agents.integrations.sample_factory.model import export_agent

from sample_factory.algo.learning.rnn_utils import build_core_out_from_seq, build_rnn_inputs  # isort: skip
from sample_factory.algo.utils.context import sf_global_context  # isort: skip
from sample_factory.algo.utils.rl_utils import prepare_and_normalize_obs  # isort: skip


def observe(batch: int, seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "obs": torch.randint(256, (batch, 3, 64, 64), dtype=torch.uint8, generator=g),
        "last_reward": torch.rand(batch, 1, generator=g),
    }


@pytest.mark.parametrize("core", ["srwm", "sr_delta", "delta", "lstm", "gru", "feedforward"])
def test_packed_sequences_equal_the_loop(make_model, core: str) -> None:
    """Sample Factory cuts rollouts at episode ends, sorts the pieces by length, and leaves the states unsorted."""
    cfg, _, model = make_model(f"--core={core}")
    batch, steps, width = 5, cfg.rollout, model.encoder.get_out_size()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, steps, width, generator=g)
    dones = torch.rand(batch, steps, generator=g) < 0.3
    states = 0.1 * torch.randn(batch, steps, cfg.rnn_size, generator=g)

    expected, state = [], states[:, 0]
    stored = states.clone()
    for t in range(steps):
        stored[:, t] = state
        out, state = model.core(x[:, t], state)
        expected.append(out)
        state = state * (~dones[:, t, None])
    packed, begin, inverse = build_rnn_inputs(x.flatten(0, 1), dones.flatten().float(), stored.flatten(0, 1), steps)
    out, _ = model.core(packed, begin)
    got = build_core_out_from_seq(out, inverse).view(batch, steps, -1)
    torch.testing.assert_close(got, torch.stack(expected, 1), rtol=1e-5, atol=1e-5)


def test_the_core_keeps_its_own_initialisation(make_model) -> None:
    """Sample Factory re-initialises linear layers orthogonally and zeroes biases, except in the core."""
    _, _, model = make_model("--core=lstm")
    assert model.core.core.lstm.bias_ih_l0.abs().sum() > 0
    _, _, model = make_model("--core=srwm")
    weight = model.core.core.embed.weight
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    assert not torch.allclose(gram, torch.eye(len(gram)), atol=1e-3)
    # Outside the core the flag has its effect.
    head = model.critic_linear
    torch.testing.assert_close(head.weight @ head.weight.T, torch.eye(1))
    assert not head.bias.any()


def test_images_stay_bytes_until_the_encoder(make_model) -> None:
    _, _, model = make_model()
    prepared: Any = prepare_and_normalize_obs(model, observe(2))
    assert prepared["obs"].dtype == torch.uint8
    _, _, model = make_model("--normalize_input=True")
    prepared = prepare_and_normalize_obs(model, observe(2))
    assert prepared["obs"].dtype == torch.float32


@pytest.mark.parametrize("core", CORES)
def test_the_exported_agent_is_the_same_policy(make_model, core: str, tmp_path) -> None:
    flags = [f"--core={core}", "--decoder_mlp_layers", "8", "--nonlinearity=elu"]
    cfg, info, model = make_model(*flags)
    compare(cfg, info, model.eval(), tmp_path)


@pytest.mark.parametrize("critic", ["detached", "separate"])
def test_the_exported_agent_has_no_separate_critic(make_model, critic: str, tmp_path) -> None:
    cfg, info, model = make_model(f"--critic={critic}")
    compare(cfg, info, model.eval(), tmp_path)


def test_the_exported_agent_normalises_as_in_training(make_model, tmp_path) -> None:
    cfg, info, model = make_model("--normalize_input=True", "--obs_subtract_mean=100", "--obs_scale=50")
    model.train()
    for seed in range(3):
        prepare_and_normalize_obs(model, observe(64, seed))  # gathers statistics
    compare(cfg, info, model.eval(), tmp_path)


def compare(cfg, info, model, tmp_path) -> None:
    agent = load_agent(save_agent(export_agent(cfg, model, info.obs_space, {"frames": 1}), tmp_path / "agent"))
    state, own = torch.zeros(4, cfg.rnn_size), agent.initial_state(4)
    with torch.no_grad():
        for seed in range(3):
            observation = observe(4, seed)
            result = model(prepare_and_normalize_obs(model, dict(observation)), state)
            logits, values, own = agent({name: e[:, None] for name, e in observation.items()}, own)
            torch.testing.assert_close(logits[:, 0], result["action_logits"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(values[:, 0], result["values"], rtol=1e-4, atol=1e-5)
            state = result["new_rnn_states"]


def test_factories_reach_a_spawned_worker(make_model) -> None:
    make_model()
    context = pickle.loads(pickle.dumps(sf_global_context()))
    assert "procgen" in context.env_registry
    assert context.model_factory.make_model_core_func.__module__.startswith("srwm_agents")
