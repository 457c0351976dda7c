"""The portable agent: what is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

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


def test_graphs_need_a_gpu() -> None:
    with pytest.raises(ValueError, match="the agent is on 'cpu', expected a CUDA device"):
        make_agent().use_graphs()


@pytest.mark.gpu
@pytest.mark.parametrize("core", CORES)
def test_graphs_change_no_number(core: str) -> None:
    eager, graphed = (make_agent(core).cuda() for _ in range(2))
    graphed.use_graphs()
    states = [None, None]
    for step, batch in enumerate([5] * 6 + [3] * 6 + [5] * 6):
        resets = np.random.default_rng(step).random(batch) < 0.2
        results = [
            agent.act(observe(batch, step), None if state is None or len(state) != batch else state, resets=resets)
            for agent, state in zip((eager, graphed), states, strict=True)
        ]
        states = [state for _, state in results]
        assert (results[0][0] == results[1][0]).all()
        assert torch.equal(*states)


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


def in_format_1(folder: Path) -> Path:
    """Rewrite a saved agent as the first version of this package saved it."""
    content = save(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").write_bytes(content)
    config = json.loads((folder / "config.json").read_text())["agent"]
    document = {"format": 1, "weights_sha256": hashlib.sha256(content).hexdigest(), "agent": config}
    (folder / "config.json").write_text(json.dumps(document))
    return folder


def with_document(folder: Path, text: str) -> Path:
    """Put another JSON text into a saved agent's metadata, with the checksum that belongs to it."""
    tensors = load_file(folder / "model.safetensors")
    content = save(tensors, metadata={"srwm_agents": text, "sha256": "0" * 64})
    assert content.count(b"0" * 64 + b'"') == 1
    digest = hashlib.sha256(content).hexdigest().encode()
    (folder / "model.safetensors").write_bytes(content.replace(b"0" * 64 + b'"', digest + b'"'))
    return folder


def test_the_file_alone_is_the_agent(saved, tmp_path) -> None:
    with safe_open(saved / "model.safetensors", framework="pt") as opened:
        document = json.loads(opened.metadata()["srwm_agents"])
    assert document["format"] == 2
    assert document == json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text("a person's remark")
    assert load_agent(saved).config == make_agent().config
    elsewhere = (saved / "model.safetensors").rename(tmp_path / "renamed.safetensors")
    assert load_agent(elsewhere).config == make_agent().config


def test_files_have_the_permissions_of_new_files(tmp_path) -> None:
    before = os.umask(0o027)
    try:
        folder = save_agent(make_agent(), tmp_path / "agent")
    finally:
        os.umask(before)
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {
        "model.safetensors": 0o640,
        "config.json": 0o640,
    }


def test_missing_files_are_named(tmp_path, saved) -> None:
    with pytest.raises(AgentError, match=r"no agent at .*: model.safetensors is missing"):
        load_agent(tmp_path / "nowhere")
    in_format_1(saved)
    (saved / "config.json").unlink()
    with pytest.raises(AgentError, match=r"config\.json is missing"):
        load_agent(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(AgentError, match=r"model\.safetensors is missing"):
        load_agent(saved)


def test_format_1_is_still_read_and_becomes_format_2(saved) -> None:
    expected = load_agent(saved).state_dict()
    agent = load_agent(in_format_1(saved))
    torch.testing.assert_close(agent.state_dict(), expected, rtol=0, atol=0)
    save_agent(agent, saved)
    assert json.loads((saved / "config.json").read_text())["format"] == 2
    torch.testing.assert_close(load_agent(saved).state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("length", [0, 7, 8, 100, -100, -1])
def test_a_truncated_file_is_refused(saved, form: int, length: int) -> None:
    if form == 1:
        in_format_1(saved)
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(AgentError, match=r"^.*truncated or altered.*$"):
        load_agent(saved)


def test_a_bit_that_fell_over_is_refused_anywhere_in_the_file(saved) -> None:
    weights = saved / "model.safetensors"
    content = weights.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(0, header, 7), *range(header, len(content), len(content) // 50), len(content) - 1]:
        altered = bytearray(content)
        altered[position] ^= 1
        weights.write_bytes(altered)
        with pytest.raises(AgentError) as raised:
            load_agent(saved)
        assert "\n" not in str(raised.value)


def test_an_altered_file_of_format_1_is_refused(saved) -> None:
    weights = in_format_1(saved) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(AgentError, match="truncated or altered"):
        load_agent(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=99), "has format 99, this version reads 1 and 2"),
        (lambda d: d["agent"].update(core="rnn"), "unknown core 'rnn'"),
        (lambda d: d["agent"].update(colour="red"), "unknown field 'colour'"),
        (lambda d: d["agent"].pop("num_actions"), "field 'num_actions' is missing"),
        (lambda d: d["agent"].update(num_actions=7), "size mismatch"),
        (lambda d: d["agent"].update(num_actions="many"), "holds no agent"),
        (lambda d: d["agent"]["core_settings"].update(hidden_size=32), "size mismatch"),
    ],
)
@pytest.mark.parametrize("form", [1, 2])
def test_a_changed_configuration_is_refused(saved, form: int, change, message: str) -> None:
    document = json.loads((saved / "config.json").read_text())
    if form == 1:
        document = json.loads((in_format_1(saved) / "config.json").read_text())
    change(document)
    if form == 1:
        (saved / "config.json").write_text(json.dumps(document))
    else:
        with_document(saved, json.dumps(document))
    with pytest.raises(AgentError, match=message):
        load_agent(saved)


def test_a_broken_configuration_is_refused(saved) -> None:
    with pytest.raises(AgentError, match="is no JSON"):
        load_agent(with_document(saved, '{"format": 2,'))
    (in_format_1(saved) / "config.json").write_text('{"format": 1,')
    with pytest.raises(AgentError, match="is no JSON"):
        load_agent(saved)


@pytest.mark.parametrize(
    "wish",
    [
        {"core_settings": {**SETTINGS, "num_layers": 10**6}},
        {"core_settings": {**SETTINGS, "hidden_size": 10**5}},
        {"core": "lstm", "core_settings": {"hidden_size": 10**6, "num_layers": 1}},
        {"encoder_mlp_layers": [10**7]},
        {"decoder_mlp_layers": [1] * 10**5},
        {"image_shape": [3, 10**5, 10**5]},
        {"running": {"obs": [10**5, 10**5]}},
        {"num_actions": 10**9},
    ],
    ids=["layers", "width", "lstm", "encoder", "decoder", "image", "running", "actions"],
)
def test_a_configuration_that_asks_for_much_more_than_the_file_holds_is_refused_before_it_is_made(saved, wish) -> None:
    document = json.loads((saved / "config.json").read_text())
    document["agent"].update(wish)
    with pytest.raises(AgentError, match=r"asks for more weights than model\.safetensors holds"):
        load_agent(with_document(saved, json.dumps(document)))


def test_a_failed_save_keeps_the_old_agent_and_leaves_nothing_behind(saved, monkeypatch) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_agent(make_agent("lstm"), saved)
    assert load_agent(saved).config.core == "srwm"
    assert {file.name for file in saved.iterdir()} == {"model.safetensors", "config.json"}


def small_agent(value: float) -> Agent:
    """All weights and the record say ``value``."""
    settings = {**SETTINGS, "ff_size": 8}
    agent = make_agent("feedforward", core_settings=settings, image_shape=(3, 36, 36), training={"value": value})
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.fill_(value)
    return agent


def value_of(folder: Path) -> float:
    """What both say, of an agent that is whole."""
    agent = load_agent(folder)
    value = agent.config.training["value"]
    assert all((parameter == value).all() for parameter in agent.parameters())
    return value


@pytest.mark.parametrize(
    "before", ["format 2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("nothing", "format 1"))]
)
def test_a_save_that_is_killed_anywhere_leaves_the_old_agent_or_the_new_one(tmp_path, kill_everywhere, before) -> None:
    folder = tmp_path / "agent"
    new = small_agent(2.0)
    found = []

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if before != "nothing":
            save_agent(small_agent(1.0), folder)
        if before == "format 1":
            in_format_1(folder)

    def check() -> None:
        if before == "nothing" and not (folder / "model.safetensors").exists():
            with pytest.raises(AgentError, match="is missing"):
                load_agent(folder)
            found.append(0.0)
        else:
            found.append(value_of(folder))
        save_agent(small_agent(3.0), folder)
        assert value_of(folder) == 3.0
        assert {file.name for file in tmp_path.rglob("*")} == {"agent", "model.safetensors", "config.json"}

    operations = kill_everywhere(prepare, lambda: save_agent(new, folder), check)
    # Made, written, synced and moved, twice; whatever order it happens in, it changes from old to new once.
    assert operations > 20
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0.0 if before == "nothing" else 1.0, 2.0)


@pytest.mark.parametrize("left", [(".new", ".old"), (".old",), (".new",)])
def test_what_a_killed_writer_of_format_1_left_is_read_and_removed(tmp_path, left: tuple[str, ...]) -> None:
    for ending in left:
        in_format_1(save_agent(small_agent(2.0 if ending == ".new" else 1.0), tmp_path / f"agent{ending}"))
    assert value_of(tmp_path / "agent") == (2.0 if ".new" in left else 1.0)
    save_agent(small_agent(3.0), tmp_path / "agent")
    assert value_of(tmp_path / "agent") == 3.0
    assert [file.name for file in tmp_path.iterdir()] == ["agent"]


def test_a_folder_of_somebody_else_is_not_removed(tmp_path) -> None:
    (save_agent(small_agent(1.0), tmp_path / "agent.old") / "notes.txt").write_text("kept")
    save_agent(small_agent(2.0), tmp_path / "agent")
    assert value_of(tmp_path / "agent.old") == 1.0


def test_a_reader_beside_a_writer_never_fails(tmp_path) -> None:
    folder = save_agent(small_agent(1.0), tmp_path / "agent")
    agents = [small_agent(float(value)) for value in (1, 2)]
    writer = os.fork()
    if writer == 0:
        try:
            while True:
                for agent in agents:
                    save_agent(agent, folder)
        finally:
            os._exit(1)
    found = set()
    try:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            found.add(value_of(folder))
        assert os.waitpid(writer, os.WNOHANG) == (0, 0), "the writer failed"
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
    assert found == {1.0, 2.0}


def test_loading_needs_no_framework(saved) -> None:
    code = (
        "import sys; from srwm_agents import load_agent; load_agent(sys.argv[1])\n"
        "heavy = {'sample_factory', 'stable_baselines3', 'torchrl', 'procgen', 'gym'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True)
