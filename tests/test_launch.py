"""What torchrun says, GPUs of processes, and signs of life."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
import torch
from torch.distributed import HashStore  # type: ignore[attr-defined]

from srwm_agents import peers
from srwm_agents.launch import Launch, LaunchError, started_together
from srwm_agents.peers import Peers
from srwm_agents.processes import Processes, use_own_gpu

TORCHRUN = {
    **{"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "TORCHELASTIC_RESTART_COUNT": "2"},
}


def test_the_place_of_a_process() -> None:
    assert Launch.here({}) == Launch(0, 1, 0, 1)
    assert Launch.here(TORCHRUN) == Launch(3, 4, 1, 2, attempt=2)
    assert not Launch.here(TORCHRUN).is_main
    assert Launch.here({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) == Launch()


def test_a_scheduler_that_counts_its_tasks_starts_no_group() -> None:
    environment = {"WORLD_SIZE": "4", "RANK": "1"}
    assert not started_together(environment)
    assert Launch.here(environment) == Launch()


@pytest.mark.parametrize(("name", "value"), [("RANK", "4"), ("RANK", "-1"), ("LOCAL_RANK", "x"), ("WORLD_SIZE", "")])
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(LaunchError, match=name):
        Launch.here({**TORCHRUN, name: value})


@pytest.mark.parametrize(
    ("visible", "local_rank", "expected"),
    [(None, 1, "1"), ("4,6", 0, "4"), ("4,6", 1, "6"), ("GPU-a, GPU-b", 1, "GPU-b")],
)
def test_each_process_sees_its_own_gpu(monkeypatch, visible: str | None, local_rank: int, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    use_own_gpu(Launch(local_rank, 2, local_rank, 2))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_gpus_that_are_not_there(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="torchrun started 2 processes on this machine, where PyTorch sees 1 GPU: "):
        use_own_gpu(Launch(0, 2, 0, 2))
    use_own_gpu(Launch())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    use_own_gpu(Launch(0, 2, 0, 2))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


def test_a_single_process_is_its_own_mean(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with Processes("cpu") as processes:
        assert processes.largest(7) == 7
        assert not processes.any(False)
        assert torch.equal(processes.mean(torch.ones(3)), torch.ones(3))


@pytest.fixture
def quick(monkeypatch) -> None:
    """Signs of life at once, and little patience."""
    monkeypatch.setattr(peers, "_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(peers, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(peers, "GRACE_SECONDS", 0.2)


def until(condition: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.usefixtures("quick")
def test_messages_reach_the_main_process_in_order() -> None:
    store, given_up = HashStore(), []
    threads = [Peers(Launch(rank, 3), store, given_up.append) for rank in range(3)]
    for thread in threads:
        thread.start()
    sent = [bytes([0, 255, number]) for number in range(20)]
    for message in sent:
        threads[2].send(message)
    received: list[bytes] = []
    until(lambda: received.extend(threads[0].received()) or len(received) == len(sent))
    assert received == sent
    assert not threads[1].received()
    time.sleep(1.0)  # twice what a silent one may take
    for thread in threads:
        thread.end()
    assert [thread.report for thread in threads] == [None] * 3
    assert not given_up


@pytest.mark.usefixtures("quick")
def test_a_silent_process_is_reported_and_the_others_end() -> None:
    store, given_up = HashStore(), []
    main, other, silent = (Peers(Launch(rank, 3), store, given_up.append) for rank in range(3))
    main.start()
    other.start()
    until(lambda: main.report and other.report)
    assert main.report == "no sign of life from rank 2 of torchrun's 3 for 0 s"
    other.end()  # its main thread ends in time
    until(lambda: given_up)
    assert given_up == [main.report]
    assert not silent.is_alive()


@pytest.mark.usefixtures("quick")
def test_a_store_that_is_gone_is_reported(monkeypatch) -> None:
    store, given_up = HashStore(), []
    thread = Peers(Launch(0, 2), store, given_up.append)

    def fail(*_: Any) -> None:
        raise RuntimeError("recv, connection reset\nmore")

    monkeypatch.setattr(thread, "_give_sign", fail)
    thread.start()
    until(lambda: given_up)
    assert given_up == ["the store of torchrun's processes cannot be reached any more (recv, connection reset)"]
