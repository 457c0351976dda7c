"""The portable agent: what is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from srwm_agents import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.cores import CORES

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}


def make_agent(core: str = "srwm", **changes) -> Agent:
    torch.manual_seed(0)
    config = {"core": core, "core_settings": SETTINGS, "num_actions": 15, "encoder": "convnet_impala", **changes}
    return Agent(AgentConfig(**config)).eval()


def observe(batch: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.integers(0, 256, (batch, 3, 64, 64), dtype=np.uint8),
        "last_reward": rng.uniform(-1, 1, (batch, 1)).astype(np.float32),
    }


@pytest.mark.parametrize("core", CORES)
def test_save_and_load_give_the_same_agent(core: str, tmp_path) -> None:
    agent = make_agent(core, decoder_mlp_layers=(8,), environment={"games": ["maze"]}, training={"frames": 7})
    loaded = load_agent(save_agent(agent, tmp_path / "agent"))
    assert loaded.config == agent.config
    state = other = None
    for step in range(3):
        actions, state = agent.act(observe(4, step), state)
        others, other = loaded.act(observe(4, step), other)
        np.testing.assert_array_equal(actions, others)
        torch.testing.assert_close(state, other, rtol=0, atol=0)


def test_acting_remembers_and_resets_forget() -> None:
    agent = make_agent()
    _, state = agent.act(observe(2))
    assert state.abs().sum() > 0
    _, carried = agent.act(observe(2, 1), state, resets=np.array([True, False]))
    _, fresh = agent.act(observe(2, 1))
    torch.testing.assert_close(carried[0], fresh[0])
    assert not torch.allclose(carried[1], fresh[1])


def test_acting_equals_the_sequence() -> None:
    agent = make_agent()
    batches = [observe(2, seed) for seed in range(4)]
    sequence = {name: torch.stack([torch.as_tensor(o[name]) for o in batches], 1) for name in batches[0]}
    logits, _, final = agent(sequence, agent.initial_state(2))
    state = None
    for t, batch in enumerate(batches):
        actions, state = agent.act(batch, state)
        np.testing.assert_array_equal(actions, logits[:, t].argmax(-1).numpy())
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)


def test_sampling_is_seeded_and_follows_the_policy() -> None:
    agent = make_agent()
    observation = {name: np.repeat(entry, 2000, 0) for name, entry in observe(1).items()}
    draws = [
        agent.act(observation, deterministic=False, generator=torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    logits, _, _ = agent({n: torch.as_tensor(e[:1])[:, None] for n, e in observation.items()}, agent.initial_state(1))
    frequencies = np.bincount(draws[0], minlength=15) / 2000
    np.testing.assert_allclose(frequencies, logits[0, 0].softmax(-1).detach().numpy(), atol=0.05)


def test_a_single_environment_needs_no_batch() -> None:
    agent = make_agent()
    action, state = agent.act({name: entry[0] for name, entry in observe(1).items()})
    assert action.shape == ()
    assert state.shape[0] == 1


def test_wrong_observations_are_named() -> None:
    agent = make_agent()
    with pytest.raises(ValueError, match="observation has no entry 'last_reward', expected: obs, last_reward"):
        agent.act({"obs": observe(1)["obs"]})
    with pytest.raises(ValueError, match=r"entry 'obs' has shape \[2, 64, 64, 3\], expected \[2, 3, 64, 64\]"):
        agent.act({**observe(2), "obs": np.zeros((2, 64, 64, 3), np.uint8)})
    with pytest.raises(ValueError, match=r"state has shape"):
        agent.act(observe(2), torch.zeros(3, agent.core.state_size))


@pytest.fixture
def saved(tmp_path):
    return save_agent(make_agent(), tmp_path / "agent")


def test_missing_files_are_named(tmp_path, saved) -> None:
    with pytest.raises(AgentError, match=r"no agent at .*: config.json is missing"):
        load_agent(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(AgentError, match=r"model\.safetensors is missing"):
        load_agent(saved)


def test_a_truncated_file_is_refused(saved) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AgentError, match="truncated or altered"):
        load_agent(saved)


def test_a_tampered_file_is_refused(saved) -> None:
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AgentError, match="truncated or altered"):
        load_agent(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=99), "has format 99, this version reads 1"),
        (lambda d: d["agent"].update(core="gru"), "unknown core 'gru'"),
        (lambda d: d["agent"].update(colour="red"), "unknown field 'colour'"),
        (lambda d: d["agent"].pop("num_actions"), "field 'num_actions' is missing"),
        (lambda d: d["agent"].update(num_actions=7), "size mismatch"),
        (lambda d: d["agent"].update(num_actions="many"), "holds no agent"),
        (lambda d: d["agent"]["core_settings"].update(hidden_size=32), "size mismatch"),
    ],
)
def test_a_changed_configuration_is_refused(saved, change, message: str) -> None:
    file = saved / "config.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(AgentError, match=message):
        load_agent(saved)


def test_a_broken_configuration_is_refused(saved) -> None:
    (saved / "config.json").write_text('{"format": 1,')
    with pytest.raises(AgentError, match="is no JSON"):
        load_agent(saved)


def test_a_failed_save_keeps_the_old_agent(saved, monkeypatch) -> None:
    def full_disk(*_args, **_kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("srwm_agents.portable.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_agent(make_agent(), saved)
    load_agent(saved)


def test_loading_needs_no_framework(saved) -> None:
    code = (
        "import sys; from srwm_agents import load_agent; load_agent(sys.argv[1])\n"
        "heavy = {'sample_factory', 'stable_baselines3', 'torchrl', 'procgen', 'gym'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True)
