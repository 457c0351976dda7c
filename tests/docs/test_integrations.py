"""Every example of docs/integrations.md runs as it stands there, in order, in one folder."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from pathlib import Path

import gymnasium
import gymnasium.envs.registration
import pytest
import torch
from huggingface_hub import constants, file_download
from sb3_contrib import RecurrentPPO

from srwm_agents import Agent, AgentConfig, save_agent
from srwm_agents.__main__ import main
from srwm_agents.envs import registration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/integrations.md").read_text()
PAGE = PAGE[: PAGE.index("\n## TorchRL")]  # whose examples tests/integrations/torchrl runs
ELSEWHERE = ("examples/sample_factory_cartpole.py",)
"""Scripts that the page shows whole; a test of their own runs them."""
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```", PAGE, re.M | re.S)


def _standin():
    path = ROOT / "tests/integrations/hub/standin.py"
    spec = importlib.util.spec_from_file_location("hub_standin", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("hub_standin", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which `train_rl.py --preset demo` ran, it seems: an agent, here an untrained one, and its scores."""
    folder = tmp_path_factory.mktemp("page")
    torch.manual_seed(0)
    agent = Agent(
        AgentConfig(
            core="srwm",
            core_settings={"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16},
            num_actions=15,
            encoder="convnet_impala",
            environment={"games": ["starpilot", "fruitbot"], "distribution_mode": "easy"},
        )
    )
    save_agent(agent, folder / "train_dir/demo/agent")
    table = folder / "train_dir/demo/evaluation/eval_sampled.csv"
    table.parent.mkdir()
    table.write_text("split,game,episodes,return,return_low,return_high,normalised_score\ntest,fruitbot,9,1,0,2,0.1\n")
    return folder


@pytest.fixture
def world(folder, monkeypatch):
    """The page's world: gymnasium's plug-in loaded, a Hub that answers, and little time to train."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    with gymnasium.envs.registration.namespace("srwm"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there already
        registration.register()
    learn = RecurrentPPO.learn
    monkeypatch.setattr(RecurrentPPO, "learn", lambda self, steps, **kw: learn(self, min(steps, self.n_steps), **kw))
    standin = _standin()
    hub = standin.StandIn()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        file_download, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_TOKEN", standin.TOKEN)
    yield hub
    hub.shutdown()
    hub.server_close()


def test_the_examples_run(world) -> None:
    """In one test, because later ones read what earlier ones have written; a traceback names the example."""
    scripts = [(ROOT / script).read_text() for script in ELSEWHERE]
    for number, (kind, text) in enumerate(BLOCKS):
        if text in scripts:
            continue
        if kind == "python":
            exec(compile(text, f"docs/integrations.md, example {number}", "exec"), {"__name__": "__main__"})
            continue
        for line in text.splitlines():
            words = line.split()
            if words[:3] == ["python", "-m", "srwm_agents"]:
                assert main(words[3:]) == 0
            else:
                assert words[:2] == ["pip", "install"] or words[1] in ELSEWHERE, f"nobody has run: {line}"


def test_every_extra_that_the_page_installs_exists() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    extras = {name for kind, text in BLOCKS if kind == "bash" for name in re.findall(r'-e "\.\[(\w+)\]"', text)}
    assert extras == {"sb3", "procgen", "export", "hub"}
    for name in extras:
        assert re.search(rf"^{name} = \[", pyproject, re.M), name
