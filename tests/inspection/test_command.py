"""python -m srwm_agents inspect, as a user calls it, right and wrong."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from srwm_agents import Agent, AgentConfig, load_agent, save_agent
from srwm_agents.__main__ import main
from srwm_agents.evaluation.rollouts import play_episodes
from srwm_agents.evaluation.splits import Split
from srwm_agents.fewshot.classifier import ClassifierConfig, FewShotClassifier, save_classifier
from srwm_agents.inspection import Recorder
from srwm_agents.inspection import writing as inspection_writing

from .conftest import SETTINGS, make_procgen_agent

FILES = {"inspection.mp4", "inspection.png", "inspection.csv", "inspection.html"}


def inspect(*arguments: str | Path) -> int:
    return main(["inspect", *map(str, arguments), "--device=cpu"])


@pytest.fixture
def no_film(monkeypatch) -> None:
    """Film and picture, which take most of the time, are written once in other tests."""
    monkeypatch.setattr("srwm_agents.inspection.film.write_film", lambda path, _: path.write_bytes(b"film"))
    monkeypatch.setattr("srwm_agents.inspection.summary.draw_summary", lambda path, _: path.write_bytes(b"picture"))


@pytest.fixture(scope="module")
def agents(tmp_path_factory) -> Path:
    """A folder with an agent for Procgen, "game", one for an environment, "own", and a classifier, "images"."""
    folder = tmp_path_factory.mktemp("agents")
    make_procgen_agent(folder / "game")
    torch.manual_seed(0)
    record = {"env": "small_environments:test/Small-v0", "env_kwargs": {"observations": "vector"}}
    config: dict[str, Any] = {"image_shape": (), "extras": {"obs": 3}, "environment": record}
    actions = {"kind": "discrete", "sizes": [3], "start": [5], "shape": []}
    save_agent(Agent(AgentConfig("srwm", SETTINGS, 3, actions=actions, **config)), folder / "own")
    classifier = FewShotClassifier(
        ClassifierConfig("srwm", SETTINGS, image_shape=(1, 16, 16), encoder_settings={"channels": 4})
    )
    save_classifier(classifier.eval(), folder / "images")
    return folder


@pytest.mark.usefixtures("no_film")
def test_play_is_what_evaluation_plays(agents: Path, tmp_path: Path, capsys) -> None:
    """Episodes, their returns and lengths, of both games at once; page, film, picture and numbers are there."""
    assert inspect("--agent", agents / "game", "--games=starpilot,leaper", "--steps=90", "--seed=3") == 0
    folder = agents / "evaluation/game/inspection"
    assert {file.name for file in folder.iterdir()} == FILES
    table = pd.read_csv(folder / "inspection.csv")
    split = Split("test 1000-1199", 1000, 200)
    asked = iter(range(91))
    played = play_episodes(
        load_agent(agents / "game"),
        ["starpilot", "leaper"],
        "easy",
        split,
        episodes=1000,
        seed=3,
        max_envs=1,
        stop=lambda: next(asked) == 90,
    )
    assert len(played) >= 2
    for _, rows in table.groupby(["track", "episode"]):
        game, episode = rows[["track", "episode"]].iloc[0]
        expected = played[(played["game"] == game) & (played["episode"] == episode - 1)]
        if len(expected):
            assert rows["return_so_far"].iloc[-1] == expected["return"].item()
            assert len(rows) == expected["length"].item()
    assert "numbers are CSV" in capsys.readouterr().out
    page = (folder / "inspection.html").read_text()
    assert "starpilot, leaper (easy), levels of test 1000-1199; sampled actions; seed 3; 90 steps" in page


@pytest.mark.usefixtures("no_film")
def test_an_environment_of_ones_own(agents: Path, tmp_path: Path) -> None:
    assert inspect("--agent", agents / "own", "--seconds=1", "--policy=greedy", "--output", tmp_path / "o") == 0
    table = pd.read_csv(tmp_path / "o/inspection.csv")
    assert len(table) == 20  # its film has 20 pictures a second
    assert table["ended"].sum() >= 4
    assert {"observation_0", "observation_2", "probability_2", "layer2_head2_rate_b"} <= set(table.columns)
    assert set(table["action"]) <= {0, 1, 2}
    assert "data:image/webp" in (tmp_path / "o/inspection.html").read_text()


@pytest.mark.usefixtures("no_film")
def test_an_environment_without_pictures_shows_observations(agents: Path, tmp_path: Path) -> None:
    env = "small_environments:test/WithoutPictures-v0"
    assert inspect("--agent", agents / "own", "--env", env, "--steps=6", "--output", tmp_path / "o", "--forget") == 0
    page = (tmp_path / "o/inspection.html").read_text()
    assert "data:image/webp" not in page
    assert '"title":"observation"' in page
    sizes = pd.read_csv(tmp_path / "o/inspection.csv")["layer1_head1_shift_y"]
    assert sizes.max() < 5 * sizes.min()  # nothing is carried over


@pytest.mark.usefixtures("no_film")
def test_an_experiment_and_an_inspection_that_is_there(agents: Path, tmp_path: Path, capsys) -> None:
    make_procgen_agent(tmp_path / "runs/mine/agent", core="lstm")
    flags = ["--train_dir", tmp_path / "runs", "--experiment=mine", "--steps=2", "--splits=train"]
    assert inspect(*flags) == 0
    page = tmp_path / "runs/mine/evaluation/inspection/inspection.html"
    assert "no matrix that could be shown" in page.read_text()
    assert inspect(*flags) == 1
    assert "inspection.mp4 is there already; name another --output, or --overwrite" in capsys.readouterr().err
    assert inspect(*flags, "--overwrite") == 0


@pytest.mark.usefixtures("no_film")
def test_a_few_shot_classifier(agents: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("srwm_agents.fewshot.data.glyphs.CLASSES", {"train": 6, "val": 6, "test": 6})
    assert inspect("--agent", agents / "images", "--examples=2", "--output", tmp_path / "o") == 0
    table = pd.read_csv(tmp_path / "o/inspection.csv")
    assert len(table) == 10
    page = (tmp_path / "o/inspection.html").read_text()
    assert "5 classes of glyphs, 2 examples each" in page
    assert page.count("data:image/png") == 15  # ten examples and five queries
    classifier_columns = [f"probability_label {label}" for label in range(5)]
    assert table[classifier_columns].to_numpy().min() >= 0


def test_few_shot_probabilities_are_those_of_predict(agents: Path, monkeypatch) -> None:
    from srwm_agents.fewshot import load_classifier
    from srwm_agents.fewshot.building import Images
    from srwm_agents.fewshot.inspecting import record_episode
    from srwm_agents.fewshot.tasks import FewShotTask, Shape
    from srwm_agents.inspect_command import make_parser

    monkeypatch.setattr("srwm_agents.fewshot.data.glyphs.CLASSES", {"train": 6, "val": 6, "test": 6})
    classifier = load_classifier(agents / "images")
    args = make_parser().parse_args(["--agent", "x", "--seed=4"])
    args.data_dir = Path("data")
    recording = record_episode(classifier, args, "images")
    (bank,) = Images.load(("glyphs",), "val", Path("data"), None, 16, 1).banks(torch.device("cpu"), [""])
    ((examples, queries),) = FewShotTask(bank, Shape(5, 1, 5)).draw(1, torch.Generator().manual_seed(4))
    memory = classifier.learn(examples.images[0], examples.labels[0])
    expected = classifier.predict(queries.images[0][queries.labels[0].argsort()], memory)
    assert recording.answers is not None
    np.testing.assert_allclose(recording.answers[-1], expected.numpy(), atol=1e-5)
    assert [tile.label for tile in recording.examples] == examples.labels[0].tolist()


@pytest.mark.usefixtures("no_film")
def test_an_interrupt_keeps_what_was_recorded(agents: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    step = Recorder.step

    def interrupted(self: Recorder, *arguments: Any, **more: Any) -> None:
        step(self, *arguments, **more)
        if len(self) == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Recorder, "step", interrupted)
    assert inspect("--agent", agents / "own", "--steps=50", "--output", tmp_path / "o") == 130
    assert "interrupted after 5 steps, which were written" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "o/inspection.csv")) == 5
    assert {file.name for file in (tmp_path / "o").iterdir()} == FILES


@pytest.mark.usefixtures("no_film")
def test_a_failure_while_writing_leaves_what_was_there(agents: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    flags = ["--agent", agents / "own", "--steps=3", "--output", tmp_path / "o"]
    assert inspect(*flags) == 0
    before = {file.name: file.read_bytes() for file in (tmp_path / "o").iterdir()}

    def full(_path: Path, _recording: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inspection_writing, "_write_numbers", full)
    assert inspect(*flags, "--seed=1", "--overwrite") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in (tmp_path / "o").iterdir()} == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name one of --experiment and --agent"),
        (["--agent={}/none"], "no agent at"),
        (["--agent=random"], "--agent random has no memory to inspect"),
        (["--experiment=none", "--train_dir={}"], "no experiment 'none' in"),
        (["--agent={}/game", "--games=jumper"], "the agent was not trained on 'jumper', allowed: starpilot, leaper"),
        (["--agent={}/game", "--games=startpilot"], "unknown game 'startpilot'"),
        (["--agent={}/game", "--examples=1"], "--examples has no effect"),
        (["--agent={}/game", "--seconds=0"], "--seconds is 0.0, expected more than 0"),
        (["--agent={}/game", "--seconds=nan"], "--seconds is nan, expected more than 0"),
        (["--agent={}/game", "--steps=0"], "--steps is 0, expected at least 1"),
        (["--agent={}/game", "--steps=2", "--seconds=2"], "name --seconds or --steps, not both"),
        (["--agent={}/game", "--steps=6000", "--output={}/new"], "6,000 steps of 1 games are 6,000, allowed: 5,000"),
        (["--agent={}/game", "--seed=-1"], "--seed is -1, allowed: 0 to"),
        (["--agent={}/game", "--device=tpu"], "--device is 'tpu'"),
        (["--agent={}/game", "--env_kwargs={{}}"], "--env_kwargs has no effect on Procgen"),
        (["--agent={}/own", "--games=leaper"], "--games has no effect on small_environments:test/Small-v0"),
        (["--agent={}/own", "--env=nothing-v0"], "no environment 'nothing-v0'"),
        (["--agent={}/images", "--games=leaper"], "--games has no effect"),
        (["--agent={}/images", "--forget"], "--forget has no effect"),
        (["--agent={}/images", "--examples=0"], "--examples is 0, expected at least 1"),
        (["--agent={}/images", "--dataset=none"], "none"),
        (["--agent={}/images", "--output=/dev/null/x"], "results cannot be written"),
    ],
)
def test_wrong_use_is_one_line(flags: list[str], message: str, agents: Path, capsys) -> None:
    status = main(["inspect", *(flag.format(agents) for flag in flags)])
    errors = capsys.readouterr().err.strip().splitlines()
    assert status == 1
    assert message in errors[-1]
    assert errors[-1].startswith("python -m srwm_agents inspect: error: ")
    assert len(errors) == 1


def test_a_wrong_flag_is_one_line(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "--agnet", "x"])
    assert ended.value.code == 1
    assert "did you mean --agent?" in capsys.readouterr().err
