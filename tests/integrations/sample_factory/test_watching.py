"""What ends a run, and what does not: workers that stand still, clocks that are set, numbers that are not finite."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srwm_agents.experiment_folders import ExperimentError
from srwm_agents.integrations.sample_factory import processes
from srwm_agents.integrations.sample_factory.checkpoint import (
    CheckpointError,
    NotFiniteError,
    first_not_finite,
    list_checkpoints,
    load_checkpoint,
)
from srwm_agents.integrations.sample_factory.dropped import LIMIT, DroppedUpdates
from srwm_agents.integrations.sample_factory.processes import (
    StandstillGuard,
    WatchedProcess,
    WorkerDiedError,
    use_monotonic_clock,
)
from srwm_agents.integrations.sample_factory.runner import WatchedRunner
from srwm_agents.integrations.sample_factory.summaries import tolerate_write_errors
from srwm_agents.learning import ReturnScales

from signal_slot.signal_slot import EventLoop, EventLoopObject, Timer  # isort: skip
from tensorboardX import SummaryWriter  # isort: skip


class Child:
    """A process with the interface of Sample Factory's."""

    def __init__(self) -> None:
        self.name = "learner_proc0"
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.pid = self.process.pid
        self.kill = self.process.kill
        self.join = self.process.wait

    @property
    def exitcode(self) -> int | None:
        return self.process.poll()


@pytest.fixture
def child():
    made = Child()
    yield made
    made.kill()
    made.join()


def test_a_stopped_worker_is_noticed_and_a_dead_one_is_named(child, tmp_path, monkeypatch) -> None:
    watched = WatchedProcess(SimpleNamespace(_process=child, _init_func=None, event_loop=None), tmp_path, True)
    watched.look(1.0)
    assert (watched.seconds_stopped, watched.death()) == (0, None)
    child.process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + 10
    while watched.seconds_stopped < 3 and time.monotonic() < end:
        watched.look(1.0)
        time.sleep(0.01)
    assert watched.seconds_stopped >= 3
    child.process.send_signal(signal.SIGCONT)
    while watched.seconds_stopped and time.monotonic() < end:
        watched.look(1.0)
        time.sleep(0.01)
    assert watched.seconds_stopped == 0
    monkeypatch.setattr(processes, "STANDS_STILL_SECONDS", 0.5)
    guard = StandstillGuard([watched])
    guard.start()
    child.process.send_signal(signal.SIGSTOP)
    child.process.wait(10)
    guard.end()
    assert guard.report is not None
    assert "worker learner_proc0 has been standing still for" in guard.report
    assert watched.death() == "worker learner_proc0 was killed by signal 9"
    watched.join()


def fake_runner(*last_signs: float | None, awake: float, serial: bool = False) -> Any:
    signs = {f"worker_{number}": sign for number, sign in enumerate(last_signs)}
    cfg = SimpleNamespace(serial_mode=serial)
    return SimpleNamespace(cfg=cfg, threads=(), heartbeat_report_sec=60, heartbeat_dict={object: signs}, _awake=awake)


def test_components_without_a_sign_of_life_are_named() -> None:
    check = WatchedRunner._check_signs_of_life
    check(fake_runner(100.0, 150.0, awake=155))
    check(fake_runner(None, awake=170))  # it may compile first
    with pytest.raises(WorkerDiedError, match="no sign of life from worker_1 for 60 s"):
        check(fake_runner(100.0, 30.0, awake=155))
    with pytest.raises(WorkerDiedError, match="no sign of life from worker_0 for"):
        check(fake_runner(None, awake=190))
    check(fake_runner(0.0, awake=1000, serial=True))  # one slow update, in a loop that has all components


def test_timers_go_on_when_the_clock_is_set_back(monkeypatch) -> None:
    class Counter(EventLoopObject):
        fired = 0

        def count(self) -> None:
            self.fired += 1

    use_monotonic_clock()
    loop = EventLoop("loop", serial_mode=True)
    counter = Counter(loop, "counter")
    timer = Timer(loop, 0.01)
    timer.timeout.connect(counter.count)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    end = time.monotonic() + 5
    while counter.fired < 3 and time.monotonic() < end:
        loop.process_events()
        time.sleep(0.01)
    assert counter.fired >= 3


def test_summaries_on_a_full_disk_are_lost_and_nothing_hangs(tmp_path) -> None:
    writer = SummaryWriter(str(tmp_path))
    tolerate_write_errors(writer)
    events: Any = writer.file_writer.event_writer._ev_writer  # type: ignore[union-attr]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    events._py_recordio_writer.write = full
    events._py_recordio_writer.flush = full
    for step in range(50):  # more than its queue holds
        writer.add_scalar("a", 1.0, step)
    writer.flush()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"a": 1, "b": [torch.ones(2), {"c": torch.tensor([1.0, float("nan")])}]}, "b/1/c"),
        ({"a": torch.tensor([float("inf")])}, "a"),
        ({"a": float("nan")}, "a"),
        ({"a": float("-inf"), "b": torch.ones(2, dtype=torch.int64), "c": None}, None),
    ],
)
def test_first_not_finite(content, name) -> None:
    assert first_not_finite(content) == name


def test_a_diverged_agent_is_neither_saved_nor_resumed(make_learner, tmp_path) -> None:
    learner = make_learner()
    learner.save()
    folder = tmp_path / "e" / "checkpoint_p0"
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "e").rglob("*") if file.is_file()}
    with torch.no_grad():
        next(learner.actor_critic.parameters()).fill_(float("nan"))
    learner.train_step += 1
    with pytest.raises(NotFiniteError, match=r"training has diverged: model/\S+ is not finite"):
        learner.save()
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "e").rglob("*") if file.is_file()}
    checkpoint = list_checkpoints(folder, "checkpoint")[-1]
    torch.save(learner._get_checkpoint_dict(), checkpoint)
    with pytest.raises(CheckpointError, match=r"cannot be gone on from: model/\S+ is not finite"):
        load_checkpoint(checkpoint)


def test_rewards_that_are_not_finite_end_the_run_and_spoil_no_statistics(make_learner, make_batch) -> None:
    learner = make_learner("--reward_treatment=return_norm", "--num_batches_per_epoch=2")
    batch = make_batch(learner)
    learner.train(batch)
    moments = learner.return_scales.moments.clone()
    batch["rewards"][:] = float("nan")
    while learner.train_step < LIMIT:
        learner.train(batch)
    with pytest.raises(NotFiniteError, match="because the reward that they had to learn from were not finite"):
        learner.train(batch)
    assert torch.equal(moments, learner.return_scales.moments)


def test_single_updates_that_are_left_out_do_not_end_a_run() -> None:
    rollout: Any = SimpleNamespace(rewards=torch.ones(1), state=torch.ones(1), observations={"obs": torch.ones(1)})
    dropped = DroppedUpdates()
    for _ in range(10 * LIMIT):
        dropped.add(8, 4, rollout)
    for _ in range(LIMIT // 8):
        dropped.add(8, 16, rollout)  # two networks
    with pytest.raises(NotFiniteError, match="because losses or gradients were not finite"):
        dropped.add(8, 7, rollout)


def test_a_segment_with_a_nan_leaves_the_scale_of_returns_alone() -> None:
    discounts = torch.tensor([0.9, 0.9])
    clean, spoiled = ReturnScales(discounts), ReturnScales(discounts)
    rewards, dones = torch.rand(6, 5), torch.rand(6, 5) < 0.2
    games = torch.tensor([0, 1, 0, 1, 0, 1])
    clean.update(rewards[:4], dones[:4], games[:4])
    bad = rewards.clone()
    bad[4, 2], bad[5, 0] = float("nan"), float("inf")
    spoiled.update(bad, dones, games)
    torch.testing.assert_close(clean.deviation, spoiled.deviation)
    assert torch.equal(clean.count, spoiled.count)


def test_nothing_is_saved_into_a_folder_that_is_gone(make_learner, tmp_path) -> None:
    learner = make_learner()
    learner.save()
    (tmp_path / "e").rename(tmp_path / "moved")
    for save in (learner.save, learner.save_milestone):
        with pytest.raises(ExperimentError, match="was deleted or moved"):
            save()
    assert not (tmp_path / "e").exists()


def test_a_stop_is_not_kept_waiting_by_the_rest_of_a_batch(make_learner, make_batch) -> None:
    learner = make_learner("--num_batches_per_epoch=4", "--num_epochs=2")
    batch = make_batch(learner)
    learner.stop_flag = torch.zeros(1, dtype=torch.uint8)
    learner.train(batch)
    frames = learner.env_steps
    assert (learner.train_step, frames > 0) == (8, True)
    learner.stop_flag.fill_(1)
    learner.train(batch)
    assert (learner.train_step, learner.env_steps) == (8, frames)
    buffer, size, invalid = learner._prepare_batch(batch)
    learner._train(buffer, learner.cfg.batch_size, size, invalid)
    assert learner.train_step == 8


def test_when_a_run_saves_does_not_change_what_it_learns(make_learner) -> None:
    learner = make_learner()
    for _ in range(2):  # the second time there is an average to move
        before = torch.get_rng_state()
        learner.save()
        assert torch.equal(before, torch.get_rng_state())
