"""Push and load through the Hub's own client, against a local stand-in for its API."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants, file_download

from srwm_agents import Agent, AgentConfig, AgentError
from srwm_agents.integrations.hub import HubError, load_agent_from_hub, model_card, push_agent_to_hub

_spec = importlib.util.spec_from_file_location("hub_standin", Path(__file__).with_name("standin.py"))
assert _spec is not None
assert _spec.loader is not None
standin = importlib.util.module_from_spec(_spec)
sys.modules["hub_standin"] = standin
_spec.loader.exec_module(standin)

SETTINGS = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 32}
TABLE = "split,game,episodes,return,return_low,return_high,normalised_score\ntest,maze,200,7.25,6.5,8.0,0.45\n"


def make_agent() -> Agent:
    torch.manual_seed(0)
    config = AgentConfig(
        core="srwm",
        core_settings=SETTINGS,
        num_actions=15,
        encoder="convnet_impala",
        environment={"games": ["maze", "heist"], "distribution_mode": "memory", "num_levels": 500},
        training={"frames": 1_000_000, "seed": 3},
    )
    return Agent(config).eval()


def point_to(url: str, monkeypatch) -> None:
    """What HF_ENDPOINT does at the client's import: no test may reach the real Hub."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    server = standin.StandIn()
    point_to(server.url, monkeypatch)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def at(tmp_path):
    return {"cache_dir": tmp_path / "cache", "token": standin.TOKEN}


def push(agent: Agent, **kwargs) -> str:
    return push_agent_to_hub(agent, "me/mazes", **{"token": standin.TOKEN, **kwargs})


def test_pushing_and_loading_round_trip(hub, at) -> None:
    agent = make_agent()
    address = push(agent, license="mit")
    assert address.startswith(f"{hub.url}/me/mazes/commit/")
    assert set(hub.repos["me/mazes"]) == {"README.md", "config.json", "model.safetensors"}
    hub.repos["me/mazes"]["evil.pkl"] = b"never fetched"
    loaded = load_agent_from_hub("me/mazes", **at)
    assert loaded.config == agent.config
    rng = np.random.default_rng(0)
    observation = {"obs": rng.integers(0, 256, (2, 3, 64, 64), dtype=np.uint8), "last_reward": np.zeros((2, 1))}
    torch.testing.assert_close(loaded.act(observation)[1], agent.act(observation)[1], rtol=0, atol=0)
    assert set(hub.fetched) == {"config.json", "model.safetensors"}


def test_pushing_again_updates(hub, at) -> None:
    agent = make_agent()
    push(agent)
    with torch.no_grad():
        agent.value_head.bias.fill_(7)
    push(agent)
    assert load_agent_from_hub("me/mazes", **at).value_head.bias.item() == 7


def test_the_card_has_all_known_facts(tmp_path) -> None:
    (tmp_path / "eval_sampled.csv").write_text(TABLE)
    text = model_card(make_agent().config, "me/mazes", license="mit", evaluation=tmp_path / "eval_sampled.csv")
    data: Any = ModelCard(text).data
    assert data.pipeline_tag == "reinforcement-learning"
    assert data.library_name == "srwm-agents"
    assert {"srwm", "procgen", "maze", "heist"} <= set(data.tags)
    assert data.eval_results[0].metric_value == 7.25
    for line in (
        "- **games**: maze, heist",
        "- **frames**: 1,000,000",
        "- **observations**: `obs` [3, 64, 64], `last_reward` [1]",
        "| test | maze | 7.25 | 6.50, 8.00 | 0.450 | 200 |",
        'load_agent_from_hub("me/mazes")',
    ):
        assert line in text
    assert "None" not in text


def test_the_card_of_an_agent_of_unknown_origin(tmp_path) -> None:
    config = AgentConfig(core="lstm", core_settings={}, num_actions=4)
    card = model_card(config, "me/other")
    assert "Not recorded." in card
    # With the defaults that it was made with, and without what an LSTM has no use for.
    assert "- **core**: lstm (hidden_size 128, num_layers 2, input_norm False, dropout 0.0)" in card
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"x\.csv is no table of the evaluation command: it has no column 'split'"):
        model_card(config, "me/other", evaluation=tmp_path / "x.csv")


def test_wrong_uses_are_one_line(hub, at, tmp_path) -> None:
    with pytest.raises(HubError, match="no repository 'me/nothing' on the Hub, or a private one"):
        load_agent_from_hub("me/nothing", **at)
    push(make_agent())
    with pytest.raises(HubError, match="'me/mazes' on the Hub has no such revision"):
        load_agent_from_hub("me/mazes", revision="v9", **at)
    with pytest.raises(HubError, match=r"the Hub refused 'me/mazes': .*401") as raised:
        push(make_agent(), token="hf_wrong")
    assert "\n" not in str(raised.value)
    with pytest.raises(HubError, match="repo_id is 'not a name', expected user/name"):
        load_agent_from_hub("not a name", **at)
    hub.repos["me/empty"] = {"README.md": b""}
    with pytest.raises(AgentError, match=r"model\.safetensors is missing"):
        load_agent_from_hub("me/empty", **at)
    hub.repos["me/mazes"]["model.safetensors"] += b"x"
    with pytest.raises(AgentError, match="truncated or altered"):
        load_agent_from_hub("me/mazes", **at)


def test_loading_falls_back_to_the_cache(hub, at, monkeypatch) -> None:
    push(make_agent())
    load_agent_from_hub("me/mazes", **at)
    point_to("http://127.0.0.1:9", monkeypatch)  # the discard port: nobody answers
    load_agent_from_hub("me/mazes", **at)
    with pytest.raises(HubError, match="the Hub cannot be reached, and 'me/other' is not in the cache"):
        load_agent_from_hub("me/other", **at)
    with pytest.raises(HubError, match="the Hub cannot be reached: "):
        push(make_agent())
