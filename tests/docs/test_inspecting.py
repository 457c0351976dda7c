"""The examples of docs/inspecting.md run as they stand there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from sb3_contrib import RecurrentPPO

from srwm_agents import Agent, AgentConfig, save_agent
from srwm_agents.inspect_command import make_parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/inspecting.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
COMMANDS = re.findall(r"^    python -m srwm_agents inspect ([^#\n]*)", PAGE, re.M)
STEPS = [40, 64, 150]
"""Of the first examples; training of the second is one rollout here."""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with an agent where `make demo` leaves one; film and picture are written by other tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srwm_agents.inspection.film.write_film", lambda path, _: path.write_bytes(b"film"))
    monkeypatch.setattr("srwm_agents.inspection.summary.draw_summary", lambda path, _: path.write_bytes(b"picture"))
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "ff_size": 16}
    save_agent(Agent(AgentConfig("srwm", settings, 15, encoder="convnet_impala")), "train_dir/demo/agent")
    learn = RecurrentPPO.learn
    monkeypatch.setattr(RecurrentPPO, "learn", lambda self, steps, **kw: learn(self, self.n_steps, **kw))
    return tmp_path


@pytest.mark.parametrize("number", range(3))
def test_examples_run(number: int, folder: Path) -> None:
    text = EXAMPLES[number].replace("after=8_000", "after=0").replace("max_steps=300", "max_steps=40")
    exec(compile(text, f"docs/inspecting.md, example {number}", "exec"), {"__name__": "__main__"})
    table = pd.read_csv(folder / "inspection/inspection.csv")
    assert len(table) == STEPS[number]
    assert {"reward", "layer1_head2_shift_q", "layer1_head2_rate_q"} <= set(table.columns)
    probabilities = table[[name for name in table.columns if name.startswith("probability_")]]
    assert (probabilities.sum(axis=1) - 1).abs().max() < 1e-4
    assert ("value" in table.columns) == (number != 2)
    # Where an episode ends, the next step's shift is that of a first step again.
    shift = table["layer1_head1_shift_y"]
    assert (shift[1:][table["ended"].to_numpy()[:-1]] < shift.max() / 2).all()


def test_the_sample_factory_example_runs(folder: Path, monkeypatch) -> None:
    """Its lines in the place of those of the example program."""
    from srwm_agents.integrations.sample_factory.runner import environment_info

    from sample_factory.algo.runners import runner  # isort: skip
    from sample_factory.algo.utils.context import global_model_factory, reset_global_context, sf_global_context  # isort: skip

    program = (ROOT / "examples/sample_factory_cartpole.py").read_text()
    begin = program.index("    register_env(cfg.env")
    program = program[:begin] + "".join(f"    {line}\n" for line in EXAMPLES[3].splitlines())
    small = ["--train_for_env_steps=1", "--rollout=32", "--batch_size=512", "--num_epochs=1", "--hidden_size=8"]
    flags = ["train", "--env=cartpole", "--experiment=e", f"--train_dir={folder}", *small]
    monkeypatch.setattr(sys, "argv", ["program", *flags])
    monkeypatch.setattr(runner, "obtain_env_info_in_a_separate_process", environment_info)
    factory, environments = vars(global_model_factory()).copy(), sf_global_context().env_registry.copy()
    reset_global_context()
    try:
        exec(compile(program, "docs/inspecting.md, Sample Factory", "exec"), {"__name__": "__main__"})
    finally:
        reset_global_context()  # the program's environment is wrapped by a recorder, which cannot be pickled
        vars(global_model_factory()).update(factory)
        sf_global_context().env_registry.update(environments)
    table = pd.read_csv(folder / "inspection/inspection.csv")
    assert 30 <= len(table) <= 300
    assert (table["reward"] == 1).all()
    assert (table[["probability_0", "probability_1"]].sum(axis=1) - 1).abs().max() < 1e-4
    assert table["value"].notna().all()


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_commands_parse(command: str) -> None:
    args = make_parser().parse_args(command.split())
    assert (args.agent is None) != (args.experiment is None)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4
    assert len(COMMANDS) == 5
