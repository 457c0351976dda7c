"""The examples run as a reader would run them, for a few updates; those of other packages where these are installed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ppo(monkeypatch: pytest.MonkeyPatch) -> Any:
    return load("ppo_cartpole", monkeypatch)


@pytest.mark.parametrize("memory", ["srwm", "lstm", "gru", "none"])
def test_ppo_runs(ppo: Any, memory: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--num_envs", "4", "--rollout", "16", "--steps", "256", "--epochs", "2", "--minibatches", "2"]
    returns = ppo.main(["--memory", memory, "--episodes", "3", *sizes])
    assert returns.shape == (3,)
    assert (returns >= 8).all()  # no episode of CartPole is shorter
    assert f"{memory} seed 0: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["srwm", "lstm", "gru", "none"])
def test_ppo_learns_with_the_memory_that_it_acted_with(ppo: Any, name: str) -> None:
    torch.manual_seed(0)
    memory = ppo.Memory(name, 2, 8)
    x, resets = torch.randn(6, 3, 2), torch.rand(6, 3) < 0.4
    state = torch.zeros(1, 3, memory.state_size)
    whole, final = memory(x, state, resets)
    for t in range(6):
        out, state = memory(x[t, None], state, resets[t, None])
        torch.testing.assert_close(out[0], whole[t])
    torch.testing.assert_close(state, final)
    alone = memory(x[:, 1:2], torch.zeros(1, 1, memory.state_size), resets[:, 1:2])[0]
    torch.testing.assert_close(alone, whole[:, 1:2])


def test_ppo_sees_the_last_observation_of_an_episode(ppo: Any) -> None:
    envs = ppo.make_envs(3)
    envs.reset(seed=0)
    while True:
        after, _, terminated, truncated, infos = envs.step(np.zeros(3, int))
        ended = terminated | truncated
        if ended.any():
            break
    final = ppo.final_observations(infos, ended).numpy()
    assert final.shape == (ended.sum(), 2)
    assert (np.abs(final).max(1) > 0.9).all()  # fallen
    assert (np.abs(after[ended]) < 0.3).all()  # the next episode has begun in the same step
    envs.close()


def test_ppo_is_one_short_file_of_three_packages() -> None:
    source = (EXAMPLES / "ppo_cartpole.py").read_text()
    assert len(source.splitlines()) <= 250
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or node.names[0].name for node in imports]
    ours = {"torch", "numpy", "gymnasium", "srwm_agents"}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == ours


def test_the_page_of_the_swap() -> None:
    """Both loops run and give the same shapes; what it quotes stands in the examples."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/drop_in.md").read_text(), re.M | re.S)
    before, after, rllib, skrl = blocks
    names = {"torch": torch, "B": 3, "x": torch.randn(5, 3, 4), "resets": torch.rand(5, 3) < 0.5}
    for block in (before, after):
        exec(block, names)
        assert names["out"].shape == (5, 3, 32)  # type: ignore[union-attr]
    for block, name in ((rllib, "rllib_module"), (skrl, "skrl_model")):
        lines = {line.strip() for line in (EXAMPLES / f"{name}.py").read_text().splitlines()}
        assert {line.strip() for line in block.splitlines()} <= lines


def test_skrl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first pass over a rollout gives the log probabilities and values that acting gave."""
    pytest.importorskip("skrl")
    monkeypatch.chdir(tmp_path)
    example = load("skrl_model", monkeypatch)
    update, differences, ends = example.Agent.update, [], []

    def checked(agent: Any, **arguments: Any) -> None:
        names = ["observations", "actions", "log_prob", "values", "terminated", "truncated"]
        options = {"mini_batches": 1, "sequence_length": 8}
        (batch,) = agent.memory.sample_all(names=names, **options)
        (states,) = agent.memory.sample_all(names=["rnn_policy_0", "rnn_value_0"], **options)
        observations, actions, log_prob, values, terminated, truncated = batch
        inputs = {"observations": observations, "taken_actions": actions}
        inputs |= {"terminated": terminated, "truncated": truncated}
        with torch.no_grad():
            _, again = agent.policy.act({**inputs, "rnn": [states[0].transpose(0, 1)]}, role="policy")
            value, _ = agent.value.act({**inputs, "rnn": [states[1].transpose(0, 1)]}, role="value")
        differences.append(max((again["log_prob"] - log_prob).abs().max(), (value - values).abs().max()).item())
        ends.append(int(terminated.sum()))
        update(agent, **arguments)

    monkeypatch.setattr(example.Agent, "update", checked)
    example.main(["--steps", "256", "--num_envs", "4", "--rollout", "32", "--sequence_length", "8"])
    assert len(differences) == 2
    assert max(differences) < 1e-5
    assert sum(ends) > 0


def test_rllib(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.rllib", exc_type=ImportError)
    returns = load("rllib_module", monkeypatch).main(["--iterations", "1", "--batch", "256"])
    assert len(returns) == 1
    assert 8 <= returns[0] <= 500
