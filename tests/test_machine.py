"""PyTorch's threads, as the commands choose them."""

from __future__ import annotations

import argparse

import pytest
import torch

from srwm_agents.command_line import OneLineParser
from srwm_agents.evaluation.command import make_parser as eval_parser
from srwm_agents.fewshot.command import make_parser as fewshot_parser
from srwm_agents.integrations.sample_factory.arguments import parse_train_args
from srwm_agents.introspective.command import make_parser as introspective_parser
from srwm_agents.machine import THREADS_VARIABLE, add_threads_flag, threads_for, use_threads


@pytest.mark.parametrize(
    ("asked", "images", "cores", "variable", "processes", "threads"),
    [
        (None, False, 64, None, 1, 1),  # small tensors
        (None, True, 2, None, 1, 1),
        (None, True, 16, None, 1, 8),
        (None, True, 16, None, 4, 2),
        (None, True, 4, None, 4, 1),
        (3, False, 2, "7", 1, 3),  # the flag before the variable
        (None, False, 2, "7", 1, 7),
        (None, True, 16, "4,2", 1, 4),
        (None, True, 16, "0", 1, 8),
        (None, True, 16, "many", 1, 8),
    ],
)
def test_the_number_of_threads(asked, images, cores, variable, processes, threads: int) -> None:
    environment = {} if variable is None else {THREADS_VARIABLE: variable}
    assert threads_for(asked, images=images, cores=cores, environment=environment, processes=processes) == threads


def test_threads_are_set_and_left_alone_beside_a_gpu(monkeypatch) -> None:
    monkeypatch.delenv(THREADS_VARIABLE, raising=False)
    monkeypatch.setattr("srwm_agents.machine.available_cores", lambda: 6)
    before = torch.get_num_threads()
    try:
        assert use_threads(None, images=True) == torch.get_num_threads() == 3
        assert use_threads(None, images=False, device="cuda:1") == torch.get_num_threads() == 3
        assert use_threads(2, images=False, device="cuda:1") == torch.get_num_threads() == 2
        assert use_threads(None, images=False, device="auto") == (2 if torch.cuda.is_available() else 1)
    finally:
        torch.set_num_threads(before)


def test_every_command_that_computes_has_the_flag() -> None:
    assert eval_parser().parse_args(["--threads=3"]).threads == 3
    assert introspective_parser().parse_args(["train", "--threads=3"]).threads == 3
    for command in ("train", "eval"):
        assert fewshot_parser(None).parse_args([command, "--threads=3"]).threads == 3
    assert parse_train_args(["--threads=3"]).threads == 3
    assert parse_train_args([]).threads is None


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", ""])
def test_a_number_that_is_none_is_refused_in_one_line(text: str, capsys) -> None:
    parser: argparse.ArgumentParser = OneLineParser(prog="command")
    add_threads_flag(parser)
    with pytest.raises(SystemExit) as end:
        parser.parse_args([f"--threads={text}"])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{text!r} is no number of threads, expected at least 1" in error
