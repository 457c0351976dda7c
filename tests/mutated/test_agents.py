"""Mutated agents and classifiers: loaded whole, or refused in one line, soon and with little memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from srwm_agents import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.evaluation.subject import _games, _splits
from srwm_agents.fewshot.classifier import ClassifierConfig, FewShotClassifier, load_classifier, save_classifier

CORE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}


def make_agent(core: str) -> Agent:
    environment = {"games": ["maze", "bigfish"], "distribution_mode": "easy", "num_levels": 200, "start_level": 0}
    config = AgentConfig(
        core,
        CORE,
        num_actions=4,
        image_shape=(3, 36, 36),
        extras={"last_reward": 1, "last_action": 4},
        encoder="convnet_impala",
        encoder_mlp_layers=(8,),
        decoder_mlp_layers=(8,),
        running={"obs": (3, 36, 36)},
        environment=environment,
        training={"frames": 7},
    )
    return Agent(config).eval()


def write(folder: Path, tensors: dict[str, torch.Tensor], text: str, form: int) -> None:
    """As a writer who means it would: the checksum is right."""
    if form == 1:
        content = save(tensors)
        try:
            document = json.loads(text)
            document["weights_sha256"] = hashlib.sha256(content).hexdigest()
            text = json.dumps(document)
        except (ValueError, TypeError, RecursionError):
            pass
        (folder / "config.json").write_text(text)
    else:
        content = save(tensors, metadata={"srwm_agents": text, "sha256": "0" * 64})
        digest = hashlib.sha256(content).hexdigest().encode()
        content = content.replace(b'"sha256":"' + b"0" * 64 + b'"', b'"sha256":"' + digest + b'"')
    (folder / "model.safetensors").write_bytes(content)


def mutate_tensors(rng: random.Random, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors = dict(tensors)
    name = rng.choice(sorted(tensors))
    tensor = tensors.pop(name).clone()
    action = rng.choice(("drop", "rename", "reshape", "dtype", "nan", "larger", "extra"))
    if action == "rename":
        tensors[f"{name}x"] = tensor
    elif action == "reshape":
        tensors[name] = tensor.flatten()
    elif action == "dtype":
        kinds = (torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float64)
        tensors[name] = tensor.to(rng.choice(kinds))
    elif action == "nan" and tensor.is_floating_point():
        tensor.view(-1)[rng.randrange(tensor.numel())] = rng.choice((float("nan"), float("inf"), -float("inf")))
        tensors[name] = tensor
    elif action == "larger":
        tensors[name] = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2) if tensor.dim() else tensor[None]
    elif action == "extra":
        tensors |= {name: tensor, "extra": tensor.clone()}
    return tensors


@pytest.mark.parametrize("core", ["srwm", "lstm"])
@pytest.mark.parametrize("form", [1, 2])
def test_mutated_agents(tmp_path, mutations, mutate, core: str, form: int) -> None:
    folder = save_agent(make_agent(core), tmp_path / "agent")
    tensors = load((folder / "model.safetensors").read_bytes())
    document = {"format": form, "agent": json.loads((folder / "config.json").read_text())["agent"]}
    loaded = 0
    for rng in mutations(60):
        content = mutate_tensors(rng, tensors) if rng.random() < 0.3 else tensors
        text = mutate(rng, document) if content is tensors or rng.random() < 0.2 else json.dumps(document)
        write(folder, content, text, form)
        if rng.random() < 0.2:
            file = folder / "model.safetensors"
            file.write_bytes(mutate(rng, file.read_bytes()))
        with mutations.refused(AgentError):
            agent = load_agent(folder)
            loaded += 1
            play(agent)
    assert loaded


def play(agent: Agent) -> None:
    """What evaluation does with an agent."""
    arguments = Namespace(start_level=None, num_levels=None, splits="train")
    with_errors: list[Any] = [lambda: _games(None, agent.config.environment), lambda: act(agent)]
    with_errors.append(lambda: _splits(arguments, agent.config.environment))
    for call in with_errors:
        with contextlib.suppress(ValueError):
            call()


def act(agent: Agent) -> None:
    if max(agent.config.image_shape) < 100:
        image = torch.zeros(2, *agent.config.image_shape, dtype=torch.uint8)
        agent.act({"obs": image, **{name: torch.zeros(2, width) for name, width in agent.config.extras.items()}})


def test_mutated_classifiers(tmp_path, mutations, mutate) -> None:
    config = ClassifierConfig(
        "srwm",
        CORE,
        image_shape=(3, 16, 16),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        encoder_settings={"channels": 4, "dropout": 0.0},
        task={"dataset": "glyphs", "shots": 1},
    )
    folder = save_classifier(FewShotClassifier(config), tmp_path / "agent")
    tensors = load((folder / "model.safetensors").read_bytes())
    document = json.loads((folder / "config.json").read_text())
    loaded = 0
    for rng in mutations(60):
        content = mutate_tensors(rng, tensors) if rng.random() < 0.2 else tensors
        write(folder, content, mutate(rng, document), 2)
        with mutations.refused(AgentError):
            classifier = load_classifier(folder)
            loaded += 1
            if max(classifier.config.image_shape) < 100:
                images = torch.zeros(2, *classifier.config.image_shape, dtype=torch.uint8)
                with contextlib.suppress(FloatingPointError):
                    answers = classifier.predict(images, classifier.learn(images, torch.tensor([0, 1])))
                    assert answers.isfinite().all()
    assert loaded
