"""Requests to stop by signals."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from srwm_agents.signals import StopRequest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_and_the_first_one_counts(number: signal.Signals) -> None:
    with StopRequest() as stop:
        assert not stop
        assert stop.exit_status == 0
        signal.raise_signal(number)
        assert stop
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(other)
    assert stop.number == number
    assert stop.exit_status == 128 + number


def test_a_second_ctrl_c_interrupts_also_after_other_signals() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stop.number == signal.SIGTERM


def test_handlers_are_restored_even_after_an_error() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with contextlib.suppress(RuntimeError), StopRequest():
        signal.raise_signal(signal.SIGINT)
        raise RuntimeError
    assert [signal.getsignal(number) for number in numbers] == before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_nothing_is_handled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopRequest() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


CLOSED_TERMINAL = """
import sys, time
from pathlib import Path
from srwm_agents.signals import StopRequest
with StopRequest() as stop:
    print("ready", flush=True)
    while not stop:
        time.sleep(0.01)
    print("saving", flush=True)
    print("saving", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("saved")
print("stopped", flush=True)
sys.exit(stop.exit_status)
"""


def test_a_closed_terminal_does_not_keep_a_run_from_saving(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSED_TERMINAL, str(tmp_path / "file")],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        cwd=ROOT,
        start_new_session=True,
        # The terminal that is closed has to be the one that controls the process.
        preexec_fn=lambda: os.close(os.open(os.ttyname(1), os.O_RDWR)),
    )
    os.close(theirs)
    assert os.read(ours, 100).startswith(b"ready")
    os.close(ours)
    assert process.wait(30) == 128 + signal.SIGHUP
    assert (tmp_path / "file").read_text() == "saved"


def test_a_signal_that_ends_a_run_of_processes_does_not_end_workers_before_they_are_asked(tmp_path: Path) -> None:
    """Worker processes leave the decision to their parent."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from srwm_agents.integrations.sample_factory.processes import begin_worker\n"
        "loop = SimpleNamespace(exec=None)\n"
        "begin_worker(lambda: None, loop, Path(sys.argv[1]) / 'w.txt', None, os.getppid(), True)\n"
        "for number in (signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.raise_signal(number)\n"
        "print('still here')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "still here" in result.stdout, result.stderr
