"""Means of agents' weights."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srwm_agents import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.averaging import MEAN_AGE, IntervalMean, average_agents, update_average


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


def test_an_agent_saved_before_a_setting_existed_is_averaged_with_one_that_has_its_default() -> None:
    older, newer = agent(1.0, 10), agent(3.0, 20)
    newer.config = replace(newer.config, core_settings={**newer.config.core_settings, "beta_bias": 0.0})
    mean = average_agents([older, newer])
    assert value_of(mean) == pytest.approx(2.0)
    assert mean.config == newer.config
    newer.config = replace(newer.config, core_settings={**newer.config.core_settings, "unit_keys": True})
    with pytest.raises(ValueError, match="different configurations"):
        average_agents([older, newer])


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="no agents"):
        average_agents([])
    with pytest.raises(ValueError, match="different configurations"):
        average_agents([agent(1.0), agent(1.0, num_actions=5)])
    for shares in ([1.0], [0.5, 0.6], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="expected 2 of at least 0 with a sum of 1"):
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


def test_means_are_those_of_float64_and_include_buffers() -> None:
    torch.manual_seed(0)
    agents = [agent(0.0, 10, running={"obs": (3, 64, 64)}) for _ in range(5)]
    for one in agents:
        for tensor in one.state_dict().values():
            torch.nn.init.normal_(tensor)
    for shares in (None, [0.0, 0.1, 0.0, 0.3, 0.6]):
        mean = average_agents(agents, shares)
        factors = torch.tensor(shares or [0.2] * 5, dtype=torch.float64)
        for name, tensor in mean.state_dict().items():
            stacked = torch.stack([one.state_dict()[name].double() for one in agents])
            expected = torch.einsum("n,n...->...", factors, stacked)
            # Float32 has 2**-24 of relative error a step; there are five, of numbers up to about 5.
            torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)


def test_the_mean_of_an_interval_is_that_of_its_weights() -> None:
    module = torch.nn.BatchNorm1d(3)
    mean, seen = IntervalMean(module), []
    for interval in range(2):
        for count in range(4):
            for tensor in module.state_dict().values():
                tensor.copy_(torch.randn(3) if tensor.is_floating_point() else torch.tensor(count))
            mean.add()
            seen.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        for name, tensor in mean.module.state_dict().items():
            expected = torch.stack([weights[name].double() for weights in seen[4 * interval :]])
            expected = expected.mean(0) if tensor.is_floating_point() else expected[-1]
            torch.testing.assert_close(tensor.double(), expected, rtol=0, atol=1e-6)
        mean.restart()
        mean.module.state_dict()["weight"].fill_(torch.nan)  # of a broken interval nothing is left in the next


def broken(folder: Path) -> str:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1])
    return "is truncated or altered"


def without_frames(folder: Path) -> str:
    save_agent(agent(1.0, training={"experiment": "old"}), folder)
    return r"training\['frames'\] in its record is None, expected a number of frames"


def with_odd_frames(folder: Path) -> str:
    save_agent(agent(1.0, training={"frames": "many"}), folder)
    return r"training\['frames'\] in its record is 'many'"


def ahead(folder: Path) -> str:
    save_agent(agent(1.0, 100), folder)
    return "it stands at 100 frames, the agent at 50"


def of_other_actions(folder: Path) -> str:
    save_agent(agent(1.0, 10, num_actions=5), folder)
    return "agents of different configurations cannot be averaged"


@pytest.mark.parametrize("spoil", [broken, without_frames, with_odd_frames, ahead, of_other_actions])
def test_an_average_that_cannot_go_on_begins_anew_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], str]
) -> None:
    folder = tmp_path / "average"
    update_average(folder, agent(1.0, 40))
    assert not caplog.records
    reason = spoil(folder)
    update_average(folder, agent(2.0, 50))
    assert value_of(load_agent(folder)) == 2.0
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert re.search(f"the average of the weights in {folder} begins anew: .*{reason}", record.getMessage())
    update_average(folder, agent(2.0, 60))
    assert len(caplog.records) == 1


def test_an_agent_without_frames_is_refused_and_the_average_stays(tmp_path: Path) -> None:
    update_average(tmp_path / "average", agent(1.0, 10))
    with pytest.raises(ValueError, match=r"training\['frames'\] in its record is None"):
        update_average(tmp_path / "average", agent(2.0, training={}))
    assert value_of(load_agent(tmp_path / "average")) == 1.0


@pytest.mark.slow
def test_an_average_goes_on_wherever_its_writer_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kill_everywhere: Callable[..., int]
) -> None:
    update_average(tmp_path / "unbroken", agent(1.0, 100))
    update_average(tmp_path / "unbroken", agent(2.0, 110))
    expected = value_of(load_agent(tmp_path / "unbroken"))
    assert 1.0 < expected < 2.0
    folder, latest = tmp_path / "average", agent(2.0, 110)

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        update_average(folder, agent(1.0, 100))

    def check() -> None:
        average = load_agent(folder)
        value = {100: 1.0, 110: expected}[average.config.training["frames"]]
        assert value_of(average) == value
        update_average(folder, latest)  # what a resumed run does
        assert value_of(load_agent(folder)) == expected
        assert not caplog.records

    assert kill_everywhere(prepare, lambda: update_average(folder, latest), check) > 20
