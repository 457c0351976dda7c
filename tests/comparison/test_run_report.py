"""The HTML report that training leaves of a run."""

from __future__ import annotations

import json

import pytest

from srwm_agents.comparison.groups import Group, games_in_common
from srwm_agents.comparison.report import compare, curves_caption
from srwm_agents.comparison.run_report import write_run_report
from srwm_agents.comparison.runs import RunError, run_at
from srwm_agents.comparison.scores import MEAN, random_returns
from srwm_agents.envs import games
from srwm_agents.envs.games import normalised_score


@pytest.fixture(autouse=True)
def _measured(monkeypatch) -> None:
    monkeypatch.setattr(games, "_RANDOM_EASY", {"maze": 4.0, "heist": 2.0})


def _groups(folder) -> list[Group]:
    run = run_at(folder, folder.name)
    assert run is not None
    return [Group(run.name, (run,))]


def test_a_report_has_curves_evaluations_settings_and_places(make_run) -> None:
    folder = make_run("mine", saved=1000)
    (folder / "evaluation").mkdir()
    row = {"split": "train", "game": "maze", "return": 7.25, "return_low": 6, "return_high": 8, "episodes": 1200}
    report = {"policy": "greedy", "forget": True, "games": [row | {"normalised_score": 0.45}]}
    (folder / "evaluation/eval_greedy_forget.json").write_text(json.dumps(report))
    (folder / "evaluation/eval_sampled.json").write_text("{")  # being written
    page = write_run_report(folder).read_text()
    for text in (
        "greedy, no memory",
        "7.25",
        "6.00, 8.00",
        "0.450",
        "1,200",
        "seed",
        "checkpoint_p0",
        '<img src="data:',
    ):
        assert text in page
    assert "No setting differs" not in page
    assert "Dotted: uniformly random actions." in page


def test_what_is_no_run_has_no_report(tmp_path) -> None:
    with pytest.raises(RunError, match="is no experiment's folder"):
        write_run_report(tmp_path)


def test_random_actions_have_a_line_where_they_were_measured(make_run) -> None:
    groups = _groups(make_run("mine"))
    playing = games_in_common(groups)
    comparison = compare(groups, playing)
    scores = [normalised_score("maze", "easy", 4.0), normalised_score("heist", "easy", 2.0)]
    assert comparison.random == {"maze": 4.0, "heist": 2.0, MEAN: pytest.approx(sum(scores) / 2)}
    assert compare(groups, playing, random={"maze": 1.0}).random == {"maze": 1.0}
    few = _groups(make_run("few", num_levels=1))
    assert random_returns(few, playing) == {}
    assert "Dotted" not in curves_caption(compare(few, playing))
    assert random_returns(_groups(make_run("hard", distribution_mode="hard")), playing) == {}
