"""Whole runs in processes of their own: finish, resume, stop, die."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_rl
from srwm_agents import load_agent
from srwm_agents.integrations.sample_factory.checkpoint import list_checkpoints, load_checkpoint

ROOT = Path(__file__).parents[3]

OFTEN = ["--experiment_summaries_interval=1", "--save_every_sec=1", "--stats_avg=5"]
PROCESSES = ["--serial_mode=False", *OFTEN]
THREADS = ["--serial_mode=False", "--in_process=True", "--num_workers=2", *OFTEN]


class Run:
    """``train_rl.py`` in a process, with what it prints."""

    def __init__(self, folder: Path, flags: list[str], script: Path = ROOT / "train_rl.py") -> None:
        self.folder = folder / "e"
        self.log = folder / f"out_{time.monotonic_ns()}.txt"
        command = [sys.executable, script, *flags, f"--train_dir={folder}", "--experiment=e"]
        self.process = subprocess.Popen(
            command, stdout=self.log.open("w"), stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
                process.kill()
            pytest.fail(f"still running after {seconds} s:\n{self.text}")

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def checkpoints(self) -> list[Path]:
        return list_checkpoints(self.folder / "checkpoint_p0", "checkpoint")

    def until(self, condition, seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < end, self.text
            time.sleep(0.1)

    def workers(self) -> list[psutil.Process]:
        """Learner, inference and rollout processes, in the order in which they were started."""
        children = psutil.Process(self.process.pid).children()
        return sorted(
            (child for child in children if "spawn_main" in " ".join(child.cmdline())), key=lambda c: c.create_time()
        )

    def learned(self) -> bool:
        """Whether a first update is behind it."""
        curves = self.folder / "curves.csv"
        if not curves.is_file():
            return False
        # The run may be in the middle of writing its first line.
        header, *rows = [line for line in curves.read_text().splitlines(keepends=True) if line.endswith("\n")] or [""]
        frames = header.split(",").index("frames") if rows else 0
        return any(int(row.split(",")[frames]) > 0 for row in rows)


def frames_of(checkpoint: Path) -> int:
    return int(re.findall(r"\d+", checkpoint.name)[1])


def test_a_run_leaves_what_it_promises_and_goes_on_in_either_engine(small_flags, tmp_path, capsys) -> None:
    """With games in their own units: what these keep must be resumed too. Plain runs are killed and stopped below."""
    units = ["--reward_treatment=return_norm", "--popart=True", "--augment_shift=4", "--augment_consistency=0.1"]
    flags = [*small_flags, *units]
    run = Run(tmp_path, [*flags, *PROCESSES, "--train_for_env_steps=6000"])
    assert run.wait(180) == 0, run.text
    assert "Traceback" not in run.text
    assert "Gym has been unmaintained" not in run.text

    agent = load_agent(run.folder / "agent")
    assert agent.config.environment["games"] == ["starpilot", "leaper"]
    average = load_agent(run.folder / "agent_average")
    assert average.config == agent.config
    assert any(not torch.equal(a, b) for a, b in zip(average.parameters(), agent.parameters(), strict=True))
    assert agent.config.training["frames"] == frames_of(run.checkpoints[-1]) >= 6000
    curves = pd.read_csv(run.folder / "curves.csv")
    assert set(curves["game"]) == {"starpilot", "leaper"}
    assert curves["frames"].max() >= 6000
    assert not curves.duplicated(["frames", "game"]).any()
    assert (run.folder / "learning_curves.png").is_file()
    events = EventAccumulator(str(run.folder / ".summary" / "0")).Reload()
    tags = set(events.Tags()["scalars"])
    for game in ("starpilot", "leaper"):
        assert {f"game_return/{game}", f"game_normalised_score/{game}"} <= tags
    assert {"train/loss", "train/grad_norm", "game_normalised_score/mean", "reward/reward"} <= tags
    assert not any("game_index" in tag for tag in tags)
    checkpoint = load_checkpoint(run.checkpoints[-1])
    seen, scales = checkpoint["model"]["critic_linear.seen"], checkpoint["return_scales"][1]
    assert (seen > 0).all()
    assert (scales > 0).all()

    # It ends before any engine starts, so it needs no process of its own.
    here = [f"--train_dir={tmp_path}", "--experiment=e"]
    assert train_rl.main([*flags, *THREADS, "--train_for_env_steps=6000", *here]) == 0
    assert "already trained" in capsys.readouterr().out

    # Both vectors fill an iteration of four updates: the oldest data are of the weights before the one before it.
    young = ["--num_batches_per_epoch=4", "--max_pending_iterations=0"]
    more = Run(tmp_path, [*flags, *THREADS, *young, "--train_for_env_steps=8000"])
    assert more.wait(180) == 0, more.text
    assert "resuming at" in more.text
    assert frames_of(more.checkpoints[-1]) >= 8000
    latest = max(run.folder.glob(".summary/0/events*"), key=lambda file: file.stat().st_mtime)
    ages = EventAccumulator(str(latest)).Reload().Scalars("train/version_diff_max")
    assert ages
    assert all(age.value <= 8 for age in ages[1:])
    checkpoint = load_checkpoint(more.checkpoints[-1])
    assert (checkpoint["model"]["critic_linear.seen"] > seen).all()
    assert (checkpoint["return_scales"][1] > scales).all()


@pytest.mark.slow
def test_what_a_run_says_at_its_end_is_its_own(small_flags, tmp_path, capsys) -> None:
    """With the files of an earlier run of the same name in the folder, and of its evaluation."""
    often = ["--experiment_summaries_interval=1", "--save_every_sec=1"]
    first = Run(tmp_path, [*small_flags, *often, "--games=starpilot", "--train_for_env_steps=2000"])
    assert first.wait(180) == 0, first.text
    report = first.folder / "evaluation" / "eval_sampled.json"
    report.parent.mkdir()
    report.write_text("{}")
    flags = [*small_flags, *often, "--games=leaper", "--train_for_env_steps=1000"]
    second = Run(tmp_path, [*flags, "--restart_behavior=overwrite"])
    assert second.wait(180) == 0, second.text
    assert "starpilot" not in second.text
    assert not report.exists()
    assert not list(tmp_path.glob("e_old*"))
    for kind in ("agent", "agent_average"):
        config = load_agent(second.folder / kind).config
        assert config.environment["games"] == ["leaper"]
        assert config.training["frames"] == frames_of(second.checkpoints[-1])
    assert all(frames_of(checkpoint) < 2000 for checkpoint in second.checkpoints)
    curves = second.folder / "curves.csv"
    assert ("learning curves:" in second.text) == curves.exists()
    if curves.exists():  # an episode has ended in so few frames
        assert set(pd.read_csv(curves)["game"]) == {"leaper"}
    events = EventAccumulator(str(second.folder / ".summary" / "0")).Reload()
    assert not any("starpilot" in tag for tag in events.Tags()["scalars"])
    # A run that trains nothing, in this process: it ends before any engine starts.
    here = [f"--train_dir={tmp_path}", "--experiment=e"]
    assert train_rl.main([*flags, *here]) == 0
    assert f"agent:           {second.folder / 'agent'}\n" in capsys.readouterr().out
    shutil.rmtree(second.folder / "agent")
    assert train_rl.main([*flags, *here]) == 0
    told = capsys.readouterr().out
    assert "already trained" in told
    assert "agent:" not in told
    assert "evaluate it" not in told


@pytest.mark.slow
def test_kills_lose_nothing_but_the_frames_since(small_flags, tmp_path) -> None:
    schedule = ["--lr_schedule=linear_decay", "--train_for_env_steps=1000000"]
    rng = random.Random()
    resumed_at = 0
    for way in (PROCESSES, THREADS):
        run = Run(tmp_path, [*small_flags, *way, *schedule])
        run.until(lambda run=run, before=resumed_at: run.checkpoints and frames_of(run.checkpoints[-1]) > before)
        time.sleep(rng.uniform(0, 2))
        workers = run.workers()
        run.process.kill()
        run.process.wait()
        if resumed_at:
            assert f"resuming at {resumed_at:,} frames" in run.text
        resumed_at = frames_of(run.checkpoints[-1])
        checkpoint = load_checkpoint(run.checkpoints[-1])
        assert checkpoint["env_steps"] == resumed_at
        assert checkpoint["curr_lr"] == pytest.approx(1e-4 * (1 - resumed_at / 1e6), rel=0.01)
        # Orphans would go on playing and hold the GPU.
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive
    last = Run(tmp_path, [*small_flags, *THREADS, *schedule, f"--train_for_env_steps={resumed_at + 1000}"])
    assert last.wait(180) == 0, last.text
    assert f"resuming at {resumed_at:,} frames" in last.text
    curves = pd.read_csv(last.folder / "curves.csv")
    assert (curves.groupby("game")["frames"].diff().dropna() >= 0).all()
    load_agent(last.folder / "agent")


@pytest.mark.parametrize(
    ("way", "number"),
    [
        pytest.param(PROCESSES, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(PROCESSES, signal.SIGHUP, marks=pytest.mark.slow),
        (THREADS, signal.SIGTERM),
    ],
    ids=["processes", "processes-hangup", "threads"],
)
def test_a_signal_saves_and_stops(small_flags, tmp_path, capsys, way: list[str], number) -> None:
    """And meanwhile the same experiment cannot be started once more."""
    flags = [*small_flags, *way, "--save_every_sec=1000", "--train_for_env_steps=1000000"]
    run = Run(tmp_path, flags)
    run.until(run.learned)
    for behavior in ("resume", "overwrite"):
        more = [f"--train_dir={tmp_path}", "--experiment=e", f"--restart_behavior={behavior}"]
        assert train_rl.main([*flags, *more]) == 1
        assert f"is in use: process {run.process.pid} on " in capsys.readouterr().err
    assert len(run.workers()) == (3 if way is PROCESSES else 0)
    run.process.send_signal(number)
    assert run.wait(40) == 128 + number, run.text
    assert "stopped and saved" in run.text
    assert frames_of(run.checkpoints[-1]) > 0
    assert load_agent(run.folder / "agent").config.training["frames"] == frames_of(run.checkpoints[-1])


@pytest.mark.slow
def test_a_folder_that_is_deleted_ends_the_run(small_flags, tmp_path) -> None:
    run = Run(tmp_path, [*small_flags, *THREADS, "--save_every_sec=1000", "--train_for_env_steps=1000000"])
    run.until(run.learned)
    shutil.rmtree(run.folder)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait(40) == 1, run.text
    assert re.search(r"train_rl.py: error: the experiment's folder \S+ was deleted or moved", run.text)
    assert "saved\n" not in run.text
    assert "Traceback" not in run.text
    assert not run.folder.exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_run(small_flags, tmp_path) -> None:
    run = Run(tmp_path, [*small_flags, *PROCESSES, "--train_for_env_steps=1000000"])
    run.until(lambda: run.checkpoints)
    random.choice(run.workers()).kill()
    assert run.wait(30) == 1, run.text
    assert re.search(r"train_rl.py: error: worker \w+_proc\S+ was killed by signal 9", run.text)


BROKEN = """
import sys
from srwm_agents import train_command
import {module} as module

def broken(*args, **kwargs):
    raise RuntimeError("this part broke")

if __name__ != "__main__" or "--in_process=True" in sys.argv:  # in the spawned workers, or in their place
    {target} = broken
if __name__ == "__main__":
    sys.exit(train_command.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "target", "process"),
    [
        ("srwm_agents.envs.procgen", "module.ProcgenVectorEnv.step_wait", "rollout_proc0"),
        ("srwm_agents.learning.update", "module.actor_critic_losses", "learner_proc0"),
    ],
)
def test_a_broken_worker_ends_the_run_with_its_traceback(small_flags, tmp_path, module, target, process) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(module=module, target=target))
    run = Run(tmp_path, [*small_flags, *PROCESSES, "--train_for_env_steps=1000000"], script)
    assert run.wait(120) == 1, run.text  # most of it is the start
    assert "RuntimeError: this part broke" in run.text
    assert f"worker {process} ended with exit status 1" in run.text.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("srwm_agents.envs.procgen", "module.ProcgenVectorEnv.step_wait"),
        ("srwm_agents.learning.update", "module.actor_critic_losses"),
    ],
)
def test_a_broken_thread_ends_the_run_with_its_traceback(small_flags, tmp_path, module, target) -> None:
    script = tmp_path / "broken.py"
    script.write_text(BROKEN.format(module=module, target=target))
    run = Run(tmp_path, [*small_flags, *THREADS, "--train_for_env_steps=1000000"], script)
    assert run.wait(60) == 1, run.text
    assert run.text.splitlines()[-1] == "python -m srwm_agents train: error: RuntimeError: this part broke"
    assert 'raise RuntimeError("this part broke")' in run.text


def test_a_checkpoint_that_does_not_load_stops_the_run_and_stays(small_flags, make_learner, tmp_path, capsys) -> None:
    """In this process: it stops before any engine starts."""
    make_learner().save()
    folder = tmp_path / "e" / "checkpoint_p0"
    newest = list_checkpoints(folder, "checkpoint")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    before = sorted(file.name for file in folder.iterdir())
    capsys.readouterr()
    flags = [*small_flags, f"--train_dir={tmp_path}", "--experiment=e", "--train_for_env_steps=400"]
    assert train_rl.main(flags) == 1
    told = capsys.readouterr()
    assert re.fullmatch(r"python -m srwm_agents train: error: checkpoint .* does not load .*\n", told.out + told.err)
    assert sorted(file.name for file in folder.iterdir()) == before


@pytest.mark.slow
def test_other_ways_to_train(small_flags, tmp_path) -> None:
    """Sample Factory's own sampling and losses."""
    flags = ["--batched_sampling=False", "--with_vtrace=False", "--core=lstm"]
    more = ["--experiment_summaries_interval=1", "--stats_avg=2", "--train_for_env_steps=2000"]
    run = Run(tmp_path, [*small_flags, *more, *flags])
    assert run.wait(180) == 0, run.text
    assert set(pd.read_csv(run.folder / "curves.csv")["game"]) == {"starpilot", "leaper"}


@pytest.mark.slow
def test_what_destroys_is_asked_for_every_time(small_flags, tmp_path, capsys) -> None:
    """A run that was begun with --restart_behavior=overwrite is resumed by a command without it."""
    flags = [*small_flags, f"--train_dir={tmp_path}", "--experiment=e"]
    run = Run(tmp_path, [*small_flags, "--restart_behavior=overwrite", "--train_for_env_steps=300"])
    assert run.wait(120) == 0, run.text
    (run.folder / "notes.txt").write_text("thesis")
    checkpoint = run.checkpoints[-1]
    assert train_rl.main([*flags, "--train_for_env_steps=300"]) == 0
    assert "already trained" in capsys.readouterr().out
    assert run.checkpoints[-1] == checkpoint
    checkpoint.unlink()
    for earlier in run.checkpoints:
        earlier.unlink()
    assert train_rl.main([*flags, "--train_for_env_steps=300"]) == 1
    assert "no checkpoint to go on from: training would begin anew" in capsys.readouterr().err


@pytest.mark.slow
def test_time_ends_training_too(small_flags, tmp_path) -> None:
    """Sample Factory never counts the seconds that --train_for_seconds is compared with."""
    run = Run(tmp_path, [*small_flags, "--train_for_seconds=2", "--train_for_env_steps=100000000"])
    assert run.wait(120) == 0, run.text
    assert "the 2 seconds of --train_for_seconds are over, at" in run.text
