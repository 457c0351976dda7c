"""``curves.csv`` as it is read: rows that count, the mean over games."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srwm_agents.curves import mean_over_games, read_curves, settled
from srwm_agents.evaluation import plot_curves

HEAD = "frames,seconds,game,episodes,mean_return,mean_length,normalised_score"


def curves_file(folder: Path, *rows: str) -> Path:
    file = folder / "curves.csv"
    file.write_text("\n".join((HEAD, *rows)) + "\n")
    return file


def test_rows_of_first_episodes_do_not_count(tmp_path) -> None:
    """At the beginning and after a resume, when "episodes" begins again."""
    rows = [f"{frames},1,maze,{episodes},5,10,.1" for frames, episodes in ((0, 3), (10, 100), (20, 250), (30, 7))]
    few = ["10,1,heist,3,5,10,.1", "20,1,heist,4,5,10,.1"]  # never has so many
    curves = read_curves(curves_file(tmp_path, *rows, "40,1,maze,120,5,10,.1", *few))
    kept = settled(curves, 100)
    assert kept[kept["game"] == "maze"]["frames"].tolist() == [10, 20, 40]
    assert kept[kept["game"] == "heist"]["frames"].tolist() == [10, 20]
    assert len(settled(curves.drop(columns="episodes"), 100)) == len(curves)


def test_the_mean_is_over_all_games_or_none(tmp_path) -> None:
    rows = ["0,1,maze,3,5,10,.1", "10,1,maze,3,5,10,.2", "10,1,heist,3,5,10,.4", "20,1,heist,3,5,10,.4"]
    mean = mean_over_games(read_curves(curves_file(tmp_path, *rows)))
    assert mean.to_dict() == {10: pytest.approx(0.3)}
    unscored = read_curves(curves_file(tmp_path, "0,1,CartPole-v1,3,20,20,", "10,1,CartPole-v1,3,30,30,"))
    assert np.isnan(unscored["normalised_score"]).all()
    assert mean_over_games(unscored).empty
    assert plot_curves(tmp_path / "curves.csv", tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
