"""Progress on the console."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from srwm_agents import display
from srwm_agents.display import TrainingDisplay, tracker


@pytest.fixture
def clock(monkeypatch):
    """A list whose only entry is the time."""
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def plain() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_is_a_line_every_20_seconds(clock) -> None:
    console = plain()
    with TrainingDisplay(console, 100_000, unit="frames") as training:
        for step in range(1, 7):
            clock[0] += 10
            training.update(10_000 * step, f"loss {step}")
    assert shown(console).splitlines() == [
        "20,000 of 100,000 frames, 1,000 frames/s, loss 2, 0:01:20 left",
        "40,000 of 100,000 frames, 1,000 frames/s, loss 4, 0:01:00 left",
        "60,000 of 100,000 frames, 1,000 frames/s, loss 6, 0:00:40 left",
    ]


def test_rates_leave_out_what_was_done_before_and_time_may_end_first(clock) -> None:
    console = plain()
    training = TrainingDisplay(console, 1000, unit="updates", done=900, max_seconds=50)
    clock[0] += 20
    training.update(910)
    assert shown(console) == "910 of 1,000 updates, 0.5 updates/s, 0:00:30 left\n"


def test_a_share_is_shown_by_its_status_alone_and_summaries_follow(clock) -> None:
    class Summarised(TrainingDisplay):
        def summary(self) -> str:
            return "maze 3.20"

    console = plain()
    training = Summarised(console, 1.0, done=0.5)
    clock[0] += 3600
    training.update(0.75, "7 updates")
    assert shown(console) == "7 updates, 1:00:00 left | maze 3.20\n"
    training.update(math.nan)
    quiet = TrainingDisplay(console, 1.0, quiet=True)
    clock[0] += 30
    quiet.update(1.0, "nothing")
    quiet.say("nothing")
    assert "nothing" not in shown(console)


def test_a_terminal_has_a_bar_with_details_under_it(clock) -> None:
    class Detailed(TrainingDisplay):
        def details(self) -> str:
            return "[maze] 3.20"

    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with Detailed(console, 200, unit="frames") as training:
        training.update(0)
        clock[0] += 10
        training.update(100, "loss [0.5]")
    last = shown(console)
    assert "100 of 200 frames, 10 frames/s, loss [0.5]" in last
    assert "50%" in last
    assert "left 0:00:10" in last
    assert "3.20" in last


def test_a_tracked_loop_passes_everything_on() -> None:
    console = plain()
    assert list(tracker(console, "images")(iter("abc"), 3, "decoding")) == list("abc")
    assert "decoding" in shown(console)
    assert "3/3" in shown(console)


def test_the_time_left_is_known_from_the_start_where_it_is_limited(clock) -> None:
    console = plain()
    training = TrainingDisplay(console, 1000, unit="frames", done=0, max_seconds=90)
    clock[0] += 30
    training.update(0)
    assert shown(console) == "0 of 1,000 frames, 0.0 frames/s, 0:01:00 left\n"
