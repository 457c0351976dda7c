"""Learning curves: a row for each game at each number of frames."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace
from typing import Any

import pandas as pd
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

from srwm_agents.integrations.sample_factory import progress
from srwm_agents.integrations.sample_factory.runner import lag_text
from srwm_agents.integrations.sample_factory.statistics import GameStatistics
from srwm_agents.integrations.sample_factory.summaries import hide_later_steps


def test_a_number_of_frames_has_one_row_for_each_game(tmp_path) -> None:
    """Also where two summaries, or the last one and the end of training, come without an update between them."""
    statistics = GameStatistics(["starpilot", "leaper"], "easy", 100, tmp_path)
    statistics.add([0, 1, 1], [3.0, 0.0, 10.0], [50, 60, 70])
    unused: Any = None
    writer = SimpleNamespace(add_scalar=lambda *_: None)
    for frames in (0, 0, 640, 640, 1280):
        statistics.extra_summaries(unused, 0, writer, frames)
    runner: Any = SimpleNamespace(env_steps={0: 1280}, writers={0: writer})
    statistics.on_stop(runner)
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert curves[["frames", "game"]].values.tolist() == [
        [frames, game] for frames in (0, 640, 1280) for game in ("starpilot", "leaper")
    ]


def test_a_resumed_run_goes_on_from_its_means(tmp_path) -> None:
    """The first episodes to end after a resume are short: alone they would be a fall, or a rise, of the curve."""
    writer = SimpleNamespace(add_scalar=lambda *_: None)
    unused: Any = None
    before = GameStatistics(["starpilot", "leaper"], "easy", 100, tmp_path)
    before.add([0] * 300, [20.0] * 300, [500] * 300)
    before.add([1] * 4, [8.0] * 4, [60] * 4)
    before.extra_summaries(unused, 0, writer, 640)
    before.extra_summaries(unused, 0, writer, 1280)

    after = GameStatistics(["starpilot", "leaper"], "easy", 100, tmp_path)
    after.resume_from(1000)  # what came later was lost with a killed run
    assert after.mean_return("starpilot") == 20.0
    after.extra_summaries(unused, 0, writer, 640)  # before anything is learned: the row that is there already
    after.add([0] * 10 + [1] * 4, [0.0] * 14, [5] * 14)
    after.extra_summaries(unused, 0, writer, 700)
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert curves["frames"].tolist() == [640, 640, 700, 700]
    assert curves["episodes"].tolist() == [300, 4, 10, 4]
    assert curves["mean_return"].tolist() == [20.0, 8.0, 18.0, 4.0]  # 90 of 100 are from before, 4 of 8
    assert curves["mean_length"].tolist()[2] == 450.5
    assert after.mean_score() is not None


def test_rows_of_lost_runs_are_dropped(tmp_path) -> None:
    """What a run counts from is its checkpoint's; without one it has nothing of the runs before it."""
    unused: Any = None
    writer = SimpleNamespace(add_scalar=lambda *_: None)
    killed = GameStatistics(["leaper"], "easy", 100, tmp_path)
    killed.add([0], [3.0], [50])
    for frames in (0, 640, 1280):
        killed.extra_summaries(unused, 0, writer, frames)
    resumed = GameStatistics(["leaper"], "easy", 100, tmp_path)
    resumed.resume_from(640)
    assert pd.read_csv(tmp_path / "curves.csv")["frames"].tolist() == [0, 640]
    anew = GameStatistics(["leaper"], "easy", 100, tmp_path)
    anew.resume_from(0)
    assert anew.mean_return("leaper") is None
    assert not (tmp_path / "curves.csv").exists()


def test_tensorboard_hides_what_lost_runs_wrote(tmp_path) -> None:
    for began, steps in ((0, (0, 640, 1280)), (640, (650, 700)), (0, (5, 20))):
        writer = SummaryWriter(str(tmp_path))
        hide_later_steps(writer, began)
        for step in steps:
            writer.add_scalar("train/loss", step, step)
        writer.close()
        time.sleep(1.1)  # a file's name says in which second it was made, and the files are read by their names
        shown = [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")]
        assert shown == ([0, 640, 1280] if steps[0] == 0 else [0, 640, 650, 700] if began else [0, 5, 20])


def test_the_age_of_the_data_is_said_once_it_is_known() -> None:
    assert lag_text({}) == ""
    lag = {"version_diff_min": 0.0, "version_diff_avg": 4.04, "version_diff_max": 8.0}
    assert lag_text(lag) == "lag 4.0 (largest 8) updates"


def test_a_trend_is_the_newer_half_less_the_older_one(tmp_path) -> None:
    statistics = GameStatistics(["starpilot"], "easy", 40, tmp_path)
    statistics.add([0] * 19, [1.0] * 19, [5] * 19)
    assert statistics.change("starpilot") is None
    statistics.add([0] * 100, [1.0] * 80 + [4.0] * 20, [5] * 100)
    assert statistics.change("starpilot") == 3.0


def test_the_display_says_when_a_checkpoint_was_saved_and_the_trend(tmp_path, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    statistics = GameStatistics(["starpilot"], "easy", 40, tmp_path)
    statistics.add([0] * 40, [2.0] * 20 + [1.0] * 20, [5] * 40)
    console = Console(file=io.StringIO(), width=200)
    training = progress.TrainingDisplay(console, statistics, 1000, 1e9)
    now[0] += 21
    training.update(100, "lag 1.0")
    (tmp_path / "checkpoint_p0").mkdir()
    now[0] += 1
    training.update(150)
    now[0] += 24
    training.update(200)
    assert isinstance(console.file, io.StringIO)
    first, second = console.file.getvalue().splitlines()
    assert first.startswith("100 of 1,000 frames, ")
    assert ", lag 1.0, " in first
    assert first.endswith("| starpilot 1.50 (-1.00)")
    assert ", saved 24 s ago, " in second


def test_the_short_episodes_after_a_resume_leave_the_curve_as_it_is(tmp_path) -> None:
    writer, unused = SimpleNamespace(add_scalar=lambda *_: None), None
    before = GameStatistics(["starpilot"], "easy", 10, tmp_path, environments=4)
    before.add([0] * 12, [1.0] * 2 + [20.0] * 10, [500] * 12)  # a run that begins anew leaves none out
    before.extra_summaries(unused, 0, writer, 640)  # type: ignore[arg-type]
    after = GameStatistics(["starpilot"], "easy", 10, tmp_path, environments=4)
    after.resume_from(640)
    after.add([0] * 8, [0.0] * 8, [5] * 8)
    assert after.mean_return("starpilot") == 20.0
    after.add([0] * 5, [30.0] * 5, [700] * 5)
    assert after.mean_return("starpilot") == 25.0
    after.extra_summaries(unused, 0, writer, 700)  # type: ignore[arg-type]
    assert pd.read_csv(tmp_path / "curves.csv")["episodes"].tolist() == [12, 13]
