"""NaN and infinity are refused where they would pass: in saved and loaded weights, averages, actions and exports."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import eval_rl
from srwm_agents import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.averaging import average_agents, update_average
from srwm_agents.cores import CoreConfig
from srwm_agents.fewshot.building import Images
from srwm_agents.fewshot.classifier import ClassifierConfig, FewShotClassifier, load_classifier, save_classifier
from srwm_agents.fewshot.data import DataError, ImageSet
from srwm_agents.fewshot.evaluation import evaluate
from srwm_agents.fewshot.tasks import FewShotTask, Shape
from srwm_agents.integrations.export import ExportError, export_agent

CORE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
ENVIRONMENT = {"games": ["starpilot"], "distribution_mode": "easy", "num_levels": 20, "start_level": 0}


def make_agent(frames: int = 0) -> Agent:
    config = AgentConfig(
        *("feedforward", CORE, 15), encoder="convnet_impala", environment=ENVIRONMENT, training={"frames": frames}
    )
    return Agent(config).eval()


def overflowing(agent: Agent) -> Agent:
    """Every weight is finite, and their products are not."""
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.fill_(1e30)
    return agent


def spoilt(agent: Agent, value: float, frames: int = 0) -> Agent:
    """One weight in the middle of the agent."""
    agent.config = replace(agent.config, training={"frames": frames})
    with torch.no_grad():
        agent.policy_head.weight[3, 5] = value
    return agent


def write_unchecked(agent: Agent, folder: Path) -> Path:
    """As a writer who does not look at the weights."""
    text = json.dumps({"format": 2, "agent": asdict(agent.config)})
    content = save(agent.state_dict(), metadata={"srwm_agents": text, "sha256": "0" * 64})
    digest = hashlib.sha256(content).hexdigest().encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content.replace(b"0" * 64 + b'"', digest + b'"'))
    return folder


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("half", [False, True])
def test_such_an_agent_is_not_saved_and_the_one_that_was_there_stays(tmp_path, value: float, half: bool) -> None:
    folder = save_agent(make_agent(7), tmp_path / "agent")
    with pytest.raises(AgentError, match=r"agent is not written: policy_head\.weight is not finite \(as 1 of"):
        save_agent(spoilt(make_agent(), value), folder, half=half)
    assert load_agent(folder).config.training == {"frames": 7}
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json"}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_such_an_agent_is_not_loaded_nor_evaluated(tmp_path, capsys, value: float) -> None:
    folder = write_unchecked(spoilt(make_agent(), value), tmp_path / "agent")
    with pytest.raises(AgentError, match=r"policy_head\.weight is not finite"):
        load_agent(folder)
    assert eval_rl.main(["--agent", str(folder), "--policy", "greedy", "--episodes", "1", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "policy_head.weight is not finite" in error
    assert error.count("\n") == 1


def test_such_an_agent_does_not_reach_an_average(tmp_path) -> None:
    folder = tmp_path / "average"
    update_average(folder, make_agent(10))
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(AgentError, match=r"not moved towards an agent at 20 frames: policy_head\.weight"):
        update_average(folder, spoilt(make_agent(), math.nan, frames=20))
    assert (folder / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match=r"agent 1 cannot be averaged: policy_head\.weight"):
        average_agents([make_agent(), spoilt(make_agent(), math.nan)])


def test_an_average_that_is_spoilt_begins_anew(tmp_path, caplog) -> None:
    folder = write_unchecked(spoilt(make_agent(), math.nan, frames=10), tmp_path / "average")
    update_average(folder, make_agent(20))
    assert load_agent(folder).config.training == {"frames": 20}
    assert "begins anew" in caplog.text
    assert "not finite" in caplog.text


@pytest.mark.parametrize("deterministic", [True, False])
def test_logits_that_are_not_finite_are_no_actions(deterministic: bool) -> None:
    agent = make_agent()
    observation = {"obs": np.zeros((2, 3, 64, 64), np.uint8), "last_reward": np.zeros((2, 1), np.float32)}
    agent.act(observation, deterministic=deterministic)
    observation["last_reward"][1] = np.nan
    with pytest.raises(ValueError, match="logits are not finite"):
        agent.act(observation, deterministic=deterministic)
    agent.decoder.append(torch.nn.Linear(16, 16))
    overflowing(agent)
    observation["last_reward"][:] = 0
    with pytest.raises(ValueError, match="logits are not finite"):
        agent.act(observation, deterministic=deterministic)


@pytest.mark.parametrize("kind", ["torch"])
def test_an_export_is_compared_in_numbers(tmp_path, kind: str) -> None:
    agent = overflowing(make_agent())
    with pytest.raises(ExportError, match="an output of the agent or of the graph is NaN or infinite"):
        export_agent(agent, tmp_path / "agent", kind)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["subtract_mean", "scale"])
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True, None, [1.0], 10**30, 10**400])
def test_settings_of_agents_are_finite_numbers(name: str, value) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*, expected a finite float"):
        AgentConfig("srwm", CORE, 4, **{name: value})


def test_settings_of_cores_have_their_types() -> None:
    for name, value in (("state_limit", math.nan), ("query_scale", math.inf), ("input_norm", "no"), ("num_heads", 2.0)):
        with pytest.raises(ValueError, match=f"{name} is .*, expected "):
            CoreConfig(**{"input_size": 3, name: value})


def test_what_an_agent_was_trained_on_has_its_types() -> None:
    for environment in ({"games": 3}, {"games": "maze"}, {"games": [1]}, {"num_levels": "all"}, {"start_level": None}):
        with pytest.raises(ValueError, match=f"{next(iter(environment))} is .*, expected"):
            AgentConfig("srwm", CORE, 4, environment=environment)
    AgentConfig("srwm", CORE, 4, environment={"anything": [1, None], **ENVIRONMENT})


def make_classifier() -> FewShotClassifier:
    config = ClassifierConfig("srwm", CORE, image_shape=(1, 16, 16), encoder_settings={"channels": 4})
    return FewShotClassifier(config).eval()


def test_such_a_classifier_is_neither_saved_nor_measured(tmp_path, bank) -> None:
    classifier = make_classifier()
    folder = save_classifier(classifier, tmp_path / "agent")
    with torch.no_grad():
        classifier.head.weight[0, 0] = math.nan
    with pytest.raises(AgentError, match=r"head\.weight is not finite"):
        save_classifier(classifier, folder)
    assert load_classifier(folder).head.weight.isfinite().all()
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        evaluate(classifier, FewShotTask(bank, Shape(5, 1, 1)), episodes=2)
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        classifier.predict(images, classifier.learn(images, torch.tensor([0, 1])))


def image_set(images: np.ndarray, std: tuple[float, ...]) -> ImageSet:
    return ImageSet("mine", "train", images, ("a", "b"), (1, 1), (0.5,) * len(std), std)


def test_images_without_contrast_are_named_and_a_channel_without_any_is_not_divided_by_zero() -> None:
    images = np.zeros((2, 3, 16, 16), np.uint8)
    with pytest.raises(DataError, match="all images of mine train are of one colour"):
        Images((image_set(images, (0.0, 0.0, 0.0)),)).moments()
    assert Images((image_set(images, (0.2, 0.0, 0.1)),)).moments()[1] == pytest.approx((0.2, 1.0, 0.1))


@pytest.fixture
def bank():
    from srwm_agents.fewshot.bank import ImageBank

    images = np.random.default_rng(0).integers(0, 256, (30, 1, 16, 16), dtype=np.uint8)
    return ImageBank(ImageSet("noise", "val", images, tuple("abcdef"), (5,) * 6, (0.5,), (0.3,)))
