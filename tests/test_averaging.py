"""Means of agents' weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srwm_agents import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.averaging import MEAN_AGE, average_agents, update_average


def agent(value: float, frames: int = 0, **changes) -> Agent:
    """With all weights at one value."""
    settings = {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "ff_size": 16}
    config = AgentConfig("srwm", settings, 4, (3, 64, 64), encoder="convnet_impala", training={"frames": frames})
    made = Agent(replace(config, **changes))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def value_of(made: Agent) -> float:
    values = torch.cat([parameter.detach().flatten() for parameter in made.parameters()])
    assert (values - values[0]).abs().max() < 1e-6
    return float(values[0])


def test_the_mean_of_agents_has_the_mean_of_their_weights_and_is_the_last_one_otherwise() -> None:
    agents = [agent(1.0, 10), agent(3.0, 20)]
    assert value_of(average_agents(agents)) == pytest.approx(2.0)
    mean = average_agents(agents, [0.25, 0.75])
    assert value_of(mean) == pytest.approx(2.5)
    assert mean.config == agents[-1].config
    assert not mean.training
    assert [value_of(one) for one in agents] == [1.0, 3.0]


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="no agents"):
        average_agents([])
    with pytest.raises(ValueError, match="different configurations"):
        average_agents([agent(1.0), agent(1.0, num_actions=5)])
    for shares in ([1.0], [0.5, 0.6]):
        with pytest.raises(ValueError, match="expected 2 with a sum of 1"):
            average_agents([agent(1.0), agent(1.0)], shares)


def test_an_average_follows_its_run_and_forgets_what_is_long_ago(tmp_path: Path) -> None:
    """With weights that are the frames themselves, the average is their mean age behind."""
    folder = tmp_path / "average"
    for frames in range(0, 1001, 10):
        update_average(folder, agent(float(frames), frames))
    average = load_agent(folder)
    assert average.config.training["frames"] == 1000
    # A save stands for the 10 frames before it.
    assert value_of(average) == pytest.approx((1 - MEAN_AGE) * (1000 + 10), rel=1e-4)
    update_average(folder, agent(1000.0, 1000))  # a resume writes the same agent again
    assert value_of(load_agent(folder)) == value_of(average)


def test_an_average_begins_anew_where_it_cannot_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "average"
    save_agent(agent(1.0, 100), folder)
    update_average(folder, agent(2.0, 50))  # from an older checkpoint
    assert value_of(load_agent(folder)) == 2.0
    update_average(folder, agent(3.0, 60, num_actions=5))
    assert value_of(load_agent(folder)) == 3.0
    (folder / "model.safetensors").write_bytes(b"half")
    update_average(folder, agent(4.0, 70))
    assert value_of(load_agent(folder)) == 4.0
    assert "begins anew" in caplog.text
