"""Files of agents that cannot be read or ask for much: one line that names the file, soon, and little memory."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import re
import resource
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from srwm_agents import Agent, AgentConfig, AgentError, load_agent, save_agent
from srwm_agents.checksums import safetensors_with_digest
from srwm_agents.fewshot.classifier import ClassifierConfig, FewShotClassifier, load_classifier, save_classifier
from srwm_agents.introspective.checkpoint import CheckpointError, load_training, save_training
from srwm_agents.introspective.training import TrainConfig, Training

CORE = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}


@pytest.fixture
def saved(tmp_path) -> Path:
    config = AgentConfig("srwm", CORE, 4, encoder="resnet_impoola", encoder_mlp_layers=(8,))
    return save_agent(Agent(config), tmp_path / "agent")


def with_document(folder: Path, text: str) -> Path:
    file = folder / "model.safetensors"
    content = save(load(file.read_bytes()), metadata={"srwm_agents": text, "sha256": "0" * 64})
    digest = hashlib.sha256(content).hexdigest().encode()
    file.write_bytes(content.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + digest))
    return folder


def changed(folder: Path, **changes) -> Path:
    document = json.loads((folder / "config.json").read_text())
    (kind,) = set(document) - {"format"}
    document[kind].update(changes)
    return with_document(folder, json.dumps(document))


def cost_of(action) -> tuple[str, float, float]:
    """What ``action`` raises, its seconds of CPU and its megabytes, in a process of its own."""

    def measure(connection) -> None:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        message = ""
        try:
            action()
        except (AgentError, CheckpointError) as error:
            message = str(error)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        connection.send((message, time.process_time() - began, grown))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs,))
    process.start()
    result = ours.recv() if ours.poll(60) else ("nothing", 60.0, 0.0)
    process.kill()
    process.join()
    return result


HUGE = {
    "layers": {"core_settings": {**CORE, "num_layers": 10**6}},
    "hidden units": {"core_settings": {**CORE, "hidden_size": 20_000}},
    "introspective": {"core": "introspective", "core_settings": {**CORE, "hidden_size": 200_000}},
    "actions": {"num_actions": 10**8},
    "image": {"image_shape": [3, 20_000, 20_000], "encoder": "convnet_simple"},
    "channels": {"image_shape": [10**7, 64, 64]},
    "widths that cancel": {"extras": {"last_reward": 10**9, "other": 1 - 10**9}},
    "statistics": {"running": {"obs": [3, 20_000, 20_000]}},
}


@pytest.mark.parametrize("wish", HUGE)
def test_huge_demands_are_refused_at_little_cost(wish: str, saved) -> None:
    message, seconds, megabytes = cost_of(lambda: load_agent(changed(saved, **HUGE[wish])))
    assert message.startswith(f"{saved} holds no agent that this version can make: ")
    assert (seconds < 3, megabytes < 300) == (True, True), (seconds, megabytes)


def test_a_pooled_image_may_be_of_any_size(saved) -> None:
    message, seconds, megabytes = cost_of(lambda: load_agent(changed(saved, image_shape=[3, 5_000, 5_000])))
    # The file holds nothing to compare an image's size with: it is known, and nothing of that size is made.
    assert message == "" or "asks for more weights" in message
    assert (seconds < 10, megabytes < 300) == (True, True), (seconds, megabytes)


def test_classifiers_of_huge_demands(tmp_path) -> None:
    config = ClassifierConfig("srwm", CORE, image_shape=(1, 16, 16), encoder_settings={"channels": 4})
    folder = save_classifier(FewShotClassifier(config), tmp_path / "agent")
    for wish in (
        {"ways": 10**8},
        {"image_shape": [1, 20_000, 20_000]},
        {"encoder_settings": {"channels": 10**5}},
        {"encoder": "resnet12", "image_shape": [1, 4000, 4000]},
        {"task": {"shots": 0}},
        {"task": {"dataset": 3}},
        {"std": [0.0]},
    ):
        message, seconds, megabytes = cost_of(lambda wish=wish: load_classifier(changed(folder, **wish)))
        assert "holds no agent that this version can make" in message, wish
        assert (seconds < 3, megabytes < 300) == (True, True), (wish, seconds, megabytes)


def write_header(file: Path, tensors: dict[str, list[int]], text: str) -> None:
    """A file of float32 zeros, which takes no room: correct in all but its digest."""
    entries: dict[str, dict] = {"__metadata__": {"srwm_agents": text}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + end)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({f"core.layers.{i}.bias": [1] for i in range(10_001)}, "10,001 tensors"),
        ({f"core.layers.{i}.bias": [1] for i in range(300_000)}, "bytes in the header"),
        ({"policy_head.weight": [100_001, 1000]}, "100,001,000 numbers"),
    ],
    ids=["tensors", "header", "numbers"],
)
def test_a_model_whose_sizes_agree_may_still_be_too_large(saved, tensors, found: str) -> None:
    document = json.loads((saved / "config.json").read_text())
    write_header(saved / "model.safetensors", tensors, json.dumps(document))
    message, seconds, megabytes = cost_of(lambda: load_agent(saved))
    assert found in message
    assert re.search(r"allowed: 1\d+,000(,000)? \(to allow it: SRWM_MAX_(TENSORS|PARAMETERS)=\d+\)$", message), message
    assert (seconds < 2, megabytes < 150) == (True, True), (seconds, megabytes)


def test_limits_are_raised_and_checked(saved, tmp_path, monkeypatch) -> None:
    config = ClassifierConfig("srwm", CORE, image_shape=(1, 16, 16), encoder_settings={"channels": 4})
    classifier = save_classifier(FewShotClassifier(config), tmp_path / "classifier")
    for read, folder in ((load_agent, saved), (load_classifier, classifier)):
        for name in ("SRWM_MAX_TENSORS", "SRWM_MAX_PARAMETERS"):
            monkeypatch.setenv(name, "12")
            with pytest.raises(AgentError, match=rf"allowed: \d.*to allow it: {name}=\d+") as error:
                read(folder)
            monkeypatch.setenv(name, re.findall(r"=(\d+)", str(error.value))[0])
            if name == "SRWM_MAX_TENSORS":  # of the header's bytes first, then of the tensors
                monkeypatch.setenv(name, "100")
            read(folder)
            monkeypatch.setenv(name, "many")
            with pytest.raises(AgentError, match=f"{name} is 'many', expected a whole number of at least 1"):
                read(folder)
            monkeypatch.delenv(name)


def test_introspective_runs_that_ask_for_much(tmp_path) -> None:
    training = Training(TrainConfig.of_task("recall", updates=5))
    save_training(training, tmp_path)
    wiring = training.config.wiring

    def asking(weights: torch.Tensor, **changes) -> Path:
        whole = (tmp_path / "checkpoint.safetensors").read_bytes()
        header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
        del header["sha256"]
        header["config"] = json.dumps({**training.config.to_json(), **changes})
        folder = tmp_path / str(sorted(changes))
        folder.mkdir(exist_ok=True)
        (folder / "checkpoint.safetensors").write_bytes(safetensors_with_digest({"weights": weights}, header))
        return folder

    many = asking(torch.zeros(10_000, wiring.num_units, wiring.num_sources), num_seeds=10_000)
    message, seconds, _ = cost_of(lambda: load_training(many))
    assert message == ""
    assert seconds < 3  # no weights are drawn that are replaced at once
    large = replace(training.config, num_hidden=1000).wiring
    wide = asking(torch.zeros(1, large.num_units, large.num_sources), num_hidden=1000)
    message, seconds, megabytes = cost_of(lambda: load_training(wide))
    assert re.search(
        r"bits in the addresses of [\d,]+ connections, allowed: 10,000,000 .*SRWM_MAX_PARAMETERS=", message
    )
    assert (seconds < 2, megabytes < 150) == (True, True), (seconds, megabytes)


def test_a_file_of_another_size_than_its_header_says_is_not_read(saved) -> None:
    os.truncate(saved / "model.safetensors", 2**38)  # a sparse file takes no room
    message, seconds, megabytes = cost_of(lambda: load_agent(saved))
    assert "is truncated or altered: it has 274,877,906,944 bytes, its header says" in message
    assert (seconds < 1, megabytes < 100) == (True, True), (seconds, megabytes)


@pytest.mark.parametrize("text", ['{"a":' * 10**5, "[" * 10**5 + "]" * 10**5], ids=["objects", "lists"])
def test_json_that_is_nested_deeper_than_python_recurses(saved, text: str) -> None:
    with pytest.raises(AgentError, match="is no JSON"):
        load_agent(with_document(saved, text))


def test_a_record_with_nan_is_read_as_json_has_it(saved) -> None:
    text = (saved / "config.json").read_text().replace('"training": {}', '"training": {"loss": NaN, "best": Infinity}')
    assert load_agent(with_document(saved, text)).config.training == {"loss": None, "best": None}
    text = (saved / "config.json").read_text().replace('"scale": 1.0', '"scale": NaN')
    with pytest.raises(AgentError, match="scale is None, expected a finite float"):
        load_agent(with_document(saved, text))


def test_weights_of_another_type_or_number_are_named(saved) -> None:
    file = saved / "model.safetensors"
    whole = file.read_bytes()
    text = json.dumps(json.loads((saved / "config.json").read_text()))
    for change, message in (
        (
            lambda t: t.update({"policy_head.bias": torch.zeros(4, dtype=torch.int64)}),
            r"policy_head\.bias is torch\.int64",
        ),
        (lambda t: t.update(more=torch.zeros(1)), "only model.safetensors holds it: 'more', as 1 tensors"),
        (lambda t: t.pop("policy_head.bias"), r"only the configuration asks for it: 'policy_head\.bias'"),
        (
            lambda t: t.update({"policy_head.bias": torch.zeros(5)}),
            r"policy_head\.bias has shape \[5\], .* asks for \[4\]",
        ),
    ):
        tensors = load(whole)
        change(tensors)
        file.write_bytes(save(tensors))
        with pytest.raises(AgentError, match=message):
            load_agent(with_document(saved, text))


def test_what_is_no_file_and_odd_names_are_one_line(tmp_path, saved) -> None:
    odd = tmp_path / "new\nline caf\udce9"
    with pytest.raises(AgentError, match=r"no agent at .*new\\nline caf\\udce9: model\.safetensors is missing"):
        load_agent(odd)
    save_agent(load_agent(saved), odd)
    assert load_agent(odd).config == load_agent(saved).config
    (odd / "model.safetensors").write_bytes(b"")
    with pytest.raises(AgentError) as raised:
        load_agent(odd)
    assert str(raised.value).isprintable()
    for make in (Path.mkdir, os.mkfifo):
        place = tmp_path / make.__name__ / "model.safetensors"
        place.parent.mkdir()
        make(place)
        with pytest.raises(AgentError, match="is missing"):
            load_agent(place.parent)


def test_agents_without_permission(tmp_path, saved) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.stat().st_uid == os.geteuid():
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)
    agent, before = load_agent(saved), os.geteuid()
    (saved / "model.safetensors").chmod(0)
    saved.chmod(0o555)
    try:
        if before == 0:
            os.seteuid(65534)
        with pytest.raises(AgentError, match=r"model\.safetensors cannot be read: Permission denied"):
            load_agent(saved)
        with pytest.raises(PermissionError):
            save_agent(agent, saved)
        os.seteuid(before)
        saved.chmod(0)
        if before == 0:
            os.seteuid(65534)
        with pytest.raises(AgentError, match=r"agent cannot be read: Permission denied"):
            load_agent(saved)
    finally:
        os.seteuid(before)
        saved.chmod(0o755)
    assert {file.name for file in saved.iterdir()} == {"model.safetensors", "config.json"}
