"""Learning curves: a row for each game at each number of frames."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from srwm_agents.integrations.sample_factory.runner import lag_text
from srwm_agents.integrations.sample_factory.statistics import GameStatistics


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


def test_the_age_of_the_data_is_said_once_it_is_known() -> None:
    assert lag_text({}) == ""
    lag = {"version_diff_min": 0.0, "version_diff_avg": 4.04, "version_diff_max": 8.0}
    assert lag_text(lag) == "lag 4.0 (largest 8) updates"
