"""Exported graphs: the same numbers as the agent, with state in and out, in runtimes that know nothing of us."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from srwm_agents import Agent, AgentConfig, save_agent
from srwm_agents.__main__ import main
from srwm_agents.integrations.export import ExportError, export_agent, exporting

SETTINGS = {
    **{"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16, "rollout_length": 3},
    "state_decay": 0.9,  # of those that have one
    "state_limit": 0.5,
    "unit_keys": True,
}
# float32 on both sides, sums in another order: a few units of 1e-7 a step.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def make_agent(core: str = "srwm", **changes) -> Agent:
    torch.manual_seed(0)
    config = {"core": core, "core_settings": SETTINGS, "num_actions": 15, "encoder": "convnet_impala", **changes}
    return Agent(AgentConfig(**config)).eval()


def episode(batch: int, steps: int = 6):
    """Observations of each step, and who begins an episode with it."""
    rng = np.random.default_rng(0)
    for t in range(steps):
        observation = {
            "obs": rng.integers(0, 256, (batch, 3, 64, 64), dtype=np.uint8),
            "last_reward": rng.uniform(-1, 1, (batch, 1)).astype(np.float32),
        }
        yield observation, (rng.random(batch) < 0.3) & (t > 0)


def agent_step(agent: Agent, observation, state, reset):
    tensors = {name: torch.from_numpy(entry)[:, None] for name, entry in observation.items()}
    with torch.no_grad():
        logits, value, state = agent(tensors, state, torch.from_numpy(reset)[:, None])
    return logits[:, 0].numpy(), value[:, 0].numpy(), state


@pytest.mark.parametrize(
    "core",
    ["srwm", pytest.param("lstm", marks=pytest.mark.slow)]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("srwm_no_carry", "gru", "feedforward", "min_gru", "gated_delta", "shm", "ffm", "mlstm")
    ],
)
def test_onnxruntime_computes_what_the_agent_does(core: str, tmp_path) -> None:
    agent = make_agent(core)
    exported = export_agent(agent, tmp_path / "agent.onnx", "onnx")
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()] == ["obs", "last_reward", "state", "reset"]
    assert [node.name for node in session.get_outputs()] == ["logits", "value", "next_state"]
    for batch in (1, 5):  # neither is the batch that was traced
        state = agent.initial_state(batch)
        memory = np.zeros((batch, agent.core.state_size), np.float32)
        for observation, reset in episode(batch):
            logits, value, state = agent_step(agent, observation, state, reset)
            got: Any = session.run(None, {**observation, "state": memory, "reset": reset})
            np.testing.assert_allclose(got[0], logits, **CLOSE)
            np.testing.assert_allclose(got[1], value, **CLOSE)
            memory = got[2]
            np.testing.assert_allclose(memory, state.numpy(), **CLOSE)
    if core in ("srwm", "lstm"):
        assert np.abs(memory).sum() > 0
    model = onnx.load(exported.path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["srwm_agents"])["agent"]["core"] == core


@pytest.mark.parametrize(
    "core",
    ["delta", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sr_delta", "fake_sr", "introspective"))],
)
def test_torch_export_computes_what_the_agent_does(core: str, tmp_path) -> None:
    agent = make_agent(core)
    exported = export_agent(agent, tmp_path / "agent.pt2", "torch")
    files = {"srwm_agents": ""}
    step = torch.export.load(exported.path, extra_files=files).module()
    about = json.loads(files["srwm_agents"])
    assert about["agent"]["core"] == core
    state = other = torch.zeros(4, about["state_size"])
    for observation, reset in episode(4):
        logits, value, state = agent_step(agent, observation, state, reset)
        tensors = {name: torch.from_numpy(entry) for name, entry in observation.items()}
        got_logits, got_value, other = step(tensors, other, torch.from_numpy(reset))
        np.testing.assert_allclose(got_logits.detach(), logits, **CLOSE)
        np.testing.assert_allclose(got_value.detach(), value, **CLOSE)
        np.testing.assert_allclose(other.detach(), state, **CLOSE)


def test_the_command_writes_beside_the_agent(tmp_path, capsys) -> None:
    folder = save_agent(make_agent("lstm"), tmp_path / "agent")
    assert main(["export", "--agent", str(folder), "--format", "torch"]) == 0
    assert (tmp_path / "agent.pt2").is_file()
    assert "outputs: logits, value, next_state" in capsys.readouterr().out


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch) -> None:
    target = tmp_path / "agent.pt2"
    target.write_text("the good one of before")

    def wrong(step, path):
        path.write_text("bad")
        return lambda observation, state, reset: (*step(observation, state, reset)[:2], state + 3)

    monkeypatch.setitem(exporting.FORMATS, "torch", wrong)
    with pytest.raises(ExportError, match=r"the torch graph differs from the agent by .*, allowed: 0\.0001"):
        export_agent(make_agent(), target, "torch")
    assert target.read_text() == "the good one of before"
    assert list(tmp_path.iterdir()) == [target]


def test_wrong_uses_are_one_line(tmp_path, capsys, monkeypatch) -> None:
    with pytest.raises(ExportError, match="format is 'torchscript', allowed: onnx, torch"):
        export_agent(make_agent(), tmp_path / "x", "torchscript")
    assert main(["export", "--agent", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err == (
        f"python -m srwm_agents export: error: no agent at {tmp_path / 'nowhere'}: model.safetensors is missing\n"
    )
    (tmp_path / "file").write_text("")
    for output, message in (
        (tmp_path, "is a folder, expected"),
        (tmp_path / "file" / "x", "results cannot be written"),
    ):
        assert main(["export", "--agent", str(tmp_path / "nowhere"), "--output", str(output)]) == 1
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"onnxruntime.*pip install 'srwm-agents\[export\]'"):
        export_agent(make_agent(), tmp_path / "x.onnx", "onnx")
    with pytest.raises(SystemExit, match="1"):
        main(["export", "--agent", "x", "--format", "jit"])
